"""Noise by address: the same bits for the same address, whatever else is drawn."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.refusals import refused
from zoo.diffusion.noise import AddressedNoise, FixedNoise, bound
from zoo.schema.errors import UsageError

SHAPE = (4, 8, 8)
address = st.tuples(
    st.sampled_from(["start", "step", "augment"]),
    st.integers(0, 2**63),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)


def at(seed, purpose="step", sample=0, stage=0, step=0, draw=0, shape=(16,)):
    return AddressedNoise(seed)(shape, purpose=purpose, samples=[sample], stage=stage, step=step, draw=draw)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batches_of_any_size_give_the_same_bits(size):
    noise = AddressedNoise(5)
    whole = noise(SHAPE, purpose="start", samples=range(8))
    parts = [noise(SHAPE, purpose="start", samples=range(8)[k : k + size]) for k in range(0, 8, size)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.dtype == torch.float32


def test_order_and_history_dont_matter():
    noise = AddressedNoise(5)
    forwards = noise(SHAPE, purpose="start", samples=[0, 1, 2])
    noise(SHAPE, purpose="step", samples=[9], step=3)
    assert torch.equal(noise(SHAPE, purpose="start", samples=[2, 0, 1]), forwards[[2, 0, 1]])


@settings(max_examples=60)
@given(seed=st.integers(0, 2**64 - 1), one=address, other=address)
def test_another_address_gives_other_noise(seed, one, other):
    same = torch.equal(at(seed, *one), at(seed, *other))
    assert same == (one == other)


def test_every_part_of_the_address_counts():
    draws = [
        at(0),
        at(1),
        at(0, purpose="start"),
        at(0, sample=1),
        at(0, stage=1),
        at(0, step=1),
        at(0, draw=1),
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


def test_a_long_draw_doesnt_run_into_another():
    # 2^17 numbers use up 2^15 counter blocks; no other draw's numbers are among them.
    long = set(at(0, shape=(2**17,)).flatten().tolist())
    for other in (at(0, sample=1), at(0, stage=1), at(0, step=1), at(0, draw=1)):
        assert len(long & set(other.flatten().tolist())) <= 2


def test_all_64_bits_of_the_seed_count():
    draws = [at(7), at(7 + 2**32), at(7 + 2**63), at(2**64 - 1)]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7", None, True])
def test_impossible_seeds_are_refused(seed):
    with refused("seed-invalid", UsageError):
        AddressedNoise(seed)


def test_numpy_seeds_are_seeds():
    assert torch.equal(at(np.int64(3)), at(3))


GOLDEN = {
    (0, "start", 0, 0, 0, 0): [-1.1623152494430542, 0.8840550780296326, 0.29754772782325745, -0.8507513999938965],
    (2**64 - 1, "step", 3, 1, 29, 2): [
        1.7647764682769775,
        -1.5132942199707031,
        -0.002332910429686308,
        -0.29257774353027344,
    ],
}


@pytest.mark.parametrize("key", GOLDEN)
def test_golden_values(key):
    """These may never change: every picture that zoo ever drew from a seed hangs on them."""
    seed, purpose, sample, stage, step, draw = key
    assert at(seed, purpose, sample, stage, step, draw, shape=(2, 2)).flatten().tolist() == GOLDEN[key]


def test_numbers_are_standard_normal_and_independent():
    noise = AddressedNoise(11)(SHAPE, purpose="step", samples=range(400)).double().flatten(1)
    count = noise.numel()
    assert abs(float(noise.mean())) < 5.0 / math.sqrt(count)
    assert abs(float(noise.var()) - 1.0) < 5.0 * math.sqrt(2.0 / count)
    assert abs(float((noise**4).mean()) - 3.0) < 5.0 * math.sqrt(96.0 / count)
    # Neighbouring samples, and the same samples at the next step, have nothing to do with each other.
    after = AddressedNoise(11)(SHAPE, purpose="step", samples=range(400), step=1).double().flatten(1)
    for other in (noise.roll(1, 0), noise.roll(1, 1), after):
        assert abs(float((noise * other).mean())) < 5.0 / math.sqrt(count)


def test_bound_noise_is_the_source_at_an_address():
    source = AddressedNoise(3)
    step_noise = bound(source, shape=SHAPE, samples=[4, 5], stage=1, purpose="step")
    expected = source(SHAPE, purpose="step", samples=[4, 5], stage=1, step=7, draw=2)
    assert torch.equal(step_noise(7, 2), expected)
    assert torch.equal(step_noise(7), source(SHAPE, purpose="step", samples=[4, 5], stage=1, step=7))
    assert step_noise(0).device.type == "cpu"


def test_fixed_noise_replays_by_address():
    start, one, two, late = (torch.full((3, 2), float(k)) for k in range(4))
    noise = FixedNoise({"start": start, "step": [one, two], ("step", 1): late, ("step", 0, 1): start})
    assert torch.equal(noise((2,), purpose="start", samples=[0, 2]), start[[0, 2]])
    assert torch.equal(noise((2,), purpose="step", samples=[1], step=0), one[[1]])
    assert torch.equal(noise((2,), purpose="step", samples=[1], stage=1, step=9), late[[1]])
    # The longest beginning of the address wins.
    assert torch.equal(noise((2,), purpose="step", samples=[1], step=1), start[[1]])


def test_a_lone_tensor_is_the_start():
    given_start = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = FixedNoise(given_start)
    replayed = noise((4,), purpose="start", samples=[0, 1])
    assert torch.equal(replayed, given_start)
    replayed.zero_()
    assert torch.equal(noise((4,), purpose="start", samples=[0, 1]), given_start)
    assert FixedNoise(given_start.bfloat16())((4,), purpose="start", samples=[0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"purpose": "other", "samples": [0]}, "noise-missing: 'other'"),
        ({"purpose": "step", "samples": [0], "step": 2}, "noise-missing"),
        ({"purpose": "start", "samples": [3]}, "noise-unfit: 3 samples and sample 3"),
        ({"purpose": "start", "samples": [0], "shape": (5,)}, "noise-unfit: shape (2,) where (5,)"),
    ],
)
def test_fixed_noise_says_what_is_missing(asked, refusal):
    noise = FixedNoise({"start": torch.zeros(3, 2), "step": [torch.zeros(3, 2)] * 2})
    with refused(refusal):
        noise(asked.pop("shape", (2,)), **asked)
