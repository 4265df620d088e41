"""The minimal examples of the docs, run as files, and what they claim to be."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from zoo.diffusion.types import Condition
from zoo.samplers.ddim import DDIM

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


@pytest.fixture(scope="module")
def examples():
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("minimal_train"), importlib.import_module("minimal_sample")
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def trained(examples):
    """A denoiser after a few steps, and its loss before and after, on the same noise."""
    train, _ = examples
    torch.manual_seed(0)
    denoiser = train.make_denoiser()

    def loss() -> float:
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            return float(train.loss_of(denoiser, train.discs(32, generator), generator))

    before = loss()
    average = train.train(denoiser, steps=40, batch=16)
    return average, before, loss()


def test_the_loop_learns(trained):
    _, before, after = trained
    assert after < 0.8 * before


def test_the_sampling_loop_is_ddim(examples, trained):
    """But for the clamp of x0, which zoo has as a guidance of its own (static-threshold)."""
    _, sampling = examples
    denoiser = trained[0]
    drawn = sampling.sample(denoiser, count=2, steps=5)
    sampler = DDIM(steps=5)
    table = sampler.plan(denoiser.schedule)
    bound = denoiser.bind(Condition(), table)

    def clamped(x, step):
        found = bound(x, step)
        return found._replace(x0=found.x0.clamp(-1.0, 1.0))

    start = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = sampler(clamped, table, table.start.sigma * start, noise=lambda *_: torch.zeros_like(start))
    torch.testing.assert_close(drawn, ours, atol=2e-4, rtol=1e-4)


def test_both_files_run(tmp_path):
    for words in (["minimal_train.py", "--steps", "2", "--batch", "2"], ["minimal_sample.py", "--steps", "2"]):
        subprocess.run([sys.executable, EXAMPLES / words[0], *words[1:]], cwd=tmp_path, check=True, capture_output=True)
    assert Image.open(tmp_path / "discs.png").size == (76, 76)


@pytest.mark.parametrize(("name", "most"), [("minimal_train.py", 125), ("minimal_sample.py", 65)])
def test_they_can_be_read_in_minutes(name, most):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= most
