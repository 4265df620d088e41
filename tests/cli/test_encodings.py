"""Names and texts whose bytes are not UTF-8: taken where a file system takes them, or refused in a sentence."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import zoo
from tests.refusals import refused
from zoo.cli.main import run
from zoo.schema.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are UTF-8 here")
ODD = os.fsdecode(b"\xff\xfe")
NETWORK = {
    "name": "unet", "in_channels": 3, "out_channels": 3, "width": 8, "mult": [1], "blocks": 1, "attention_levels": [0],
    "attention": "plain", "heads": 1, "context_width": None, "groups": 4,
}  # fmt: skip
CONFIG = {
    "schema": "zoo.pipeline/1",
    "stages": [{
        "name": "base", "size": 16, "sampler": {"name": "ddim", "steps": 1},
        "denoiser": {"network": NETWORK, "schedule": "cosine", "parameterization": "v"},
    }],
}  # fmt: skip
RECIPE = {
    "schema": "zoo.recipe/1", "name": "toy", "objective": "denoising",
    "data": {"name": "image-folder", "path": "data", "size": 16}, "network": NETWORK, "schedule": "cosine",
    "parameterization": "v", "train": {"steps": 1, "batch_size": 2, "precision": "fp32"},
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Data beside a file of such a name, and a recipe."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    names = ["0.png", "1.png", "2.png"]
    for number, name in enumerate([*names, f"{ODD}.png"]):
        Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)).save(f"data/{name}")
    rows = [{"file_name": name, "text": "x", "split": "val" if i == 0 else "train"} for i, name in enumerate(names)]
    Path("data/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def test_a_run_learns_beside_files_whatever_their_names_are(here):
    assert run(["train", "recipe.yaml", "--run", "run"]) == 0
    assert run(["data", "check", "data", "--size", "16"]) in (0, 1)


def test_a_run_s_folder_is_in_utf_8_or_refused_before_it_is_made(here, capsys):
    """TensorBoard takes no other name, which showed behind the first checkpoint's folder."""
    assert run(["train", "recipe.yaml", "--run", ODD]) == 2
    assert "[name-not-utf-8]" in capsys.readouterr().err
    assert not Path(ODD).exists()


def test_weights_in_a_folder_that_is_not_in_utf_8_are_refused(here, capsys):
    from zoo.checkpoints.files import mapped
    from zoo.checkpoints.headers import read_safetensors

    Path(ODD).mkdir()
    save_file({"a": torch.ones(2)}, f"{ODD}/a.safetensors")
    with refused("name-not-utf-8", UsageError):
        mapped(read_safetensors(Path(ODD) / "a.safetensors").tensors)


@pytest.mark.parametrize("words", [{"prompts": ODD}, {"prompts": "a \ud800"}, {"prompts": "a", "negative": ODD}])
def test_a_prompt_that_is_no_utf_8_is_refused(words):
    (stage,) = CONFIG["stages"]
    network = {**NETWORK, "attention": "transformer", "context_width": 8}
    stage = {**stage, "listens": ["text"], "denoiser": {**stage["denoiser"], "network": network}}
    text = {"name": "stand-in", "context_width": 8, "length": 4}
    config = {**CONFIG, "conditioners": {"text": text}, "stages": [stage]}
    with refused("request-invalid", UsageError):
        zoo.build(config)(**words)
