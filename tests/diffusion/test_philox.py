"""Numbers drawn by the device are those that numpy draws for the same address."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from zoo.diffusion import philox
from zoo.diffusion.draws import stream
from zoo.diffusion.noise import AddressedNoise

SAMPLES = [0, 1, 7, 511, 2**40]


@pytest.mark.parametrize(("seed", "stage", "step", "draw"), [(0, 0, 0, 0), (2**64 - 1, 3, 9, 2), (77, 2**63, 1, 2**31)])
def test_words_are_those_of_numpy_s_philox(seed, stage, step, draw):
    key, last = philox.key_of(seed, "eps"), (step << 32) | draw
    found = philox.words(key, torch.tensor(SAMPLES), 11, stage=stage, last=last)
    for row, sample in zip(found, SAMPLES, strict=True):
        counter = np.array([0, sample, stage, last], dtype=np.uint64)
        wanted = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=counter).random_raw(11)
        assert (row.numpy().view(np.uint64) == wanted).all()


def test_normal_numbers_are_those_of_the_noise_bit_for_bit():
    samples = list(range(3000, 3300))  # 300 x 1000: a thousand times past a layer's core, a dozen times in the tail
    wanted = AddressedNoise(5)((10, 100), purpose="eps", samples=samples, stage=1, step=2, draw=3)
    found = philox.normal((10, 100), philox.key_of(5, "eps"), torch.tensor(samples), stage=1, last=(2 << 32) | 3)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    assert bool((wanted.abs() > philox.TAIL).any())


def test_a_sample_is_the_same_in_any_batch_and_any_part(monkeypatch):
    key, samples = philox.key_of(1, "x"), torch.arange(40)
    whole = philox.normal((3, 7), key, samples)
    assert torch.equal(philox.normal((3, 7), key, samples[17:18])[0], whole[17])
    monkeypatch.setattr(philox, "LARGEST", 500)
    assert torch.equal(philox.normal((3, 7), key, samples), whole)


def test_uniform_numbers_are_those_of_the_streams():
    key = philox.key_of(9, "caption")
    found = philox.unit(philox.words(key, torch.tensor(SAMPLES), 3)).numpy()
    assert (found == np.stack([stream(9, "caption", s).random(3) for s in SAMPLES])).all()


def test_a_walk_that_runs_out_of_words_says_so():
    key = philox.key_of(0, "x")
    words = philox.words(key, torch.tensor([0]), 20 + 2 * philox.TRIES)
    given = philox._walk(words, torch.from_numpy(philox.layers()), 40, 20)
    assert bool(torch.isnan(given[:, 20:]).all())


INTERPRETED = """
import torch
from zoo.diffusion import philox
from zoo.diffusion.philox_kernel import blocks_of
for purpose, stage, last, blocks in (("eps", 0, 0, 3), ("t", 2**63 + 5, (9 << 32) | 2, 200)):
    samples = torch.tensor([0, 1, 7, 511, 2**40])
    fixed = philox._fixed(philox.key_of(2**64 - 3, purpose), stage, last, samples.device)
    assert torch.equal(blocks_of(samples, fixed, blocks), philox._blocks(samples, fixed, blocks)), purpose
"""


@pytest.mark.slow
def test_the_kernel_gives_the_same_words():
    """By Triton's interpreter, which needs no GPU."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fault", ["it is missing", "other words"])
def test_a_kernel_that_fails_or_gives_other_words_is_not_used(monkeypatch, fault):
    fixed = philox._fixed(philox.key_of(4, "eps"), 0, 0, torch.device("cpu"))
    fused, calls = philox._Fused(), []

    def kernel(samples, fixed, blocks):
        calls.append(blocks)
        if fault == "it is missing":
            raise RuntimeError(fault)
        return philox._blocks(samples, fixed, blocks) + 1

    monkeypatch.setattr(fused, "_kernel", kernel)
    wanted = philox._blocks(torch.tensor(SAMPLES), fixed, 3)
    with pytest.warns(UserWarning, match=fault):
        assert torch.equal(fused(torch.tensor(SAMPLES), fixed, 3), wanted)
    assert torch.equal(fused(torch.tensor(SAMPLES), fixed, 3), wanted)
    assert calls == [3]


def test_a_kernel_that_gives_the_same_words_is_used_from_the_second_time_on(monkeypatch):
    fixed = philox._fixed(philox.key_of(4, "eps"), 0, 0, torch.device("cpu"))
    fused, plain = philox._Fused(), philox._blocks
    monkeypatch.setattr(fused, "_kernel", plain)
    fused(torch.tensor(SAMPLES), fixed, 3)
    monkeypatch.setattr(philox, "_blocks", lambda *given: 1 / 0)
    fused(torch.tensor(SAMPLES), fixed, 3)
    with pytest.raises(ZeroDivisionError):
        fused(torch.tensor(SAMPLES), fixed, 4)  # another shape is tried anew
