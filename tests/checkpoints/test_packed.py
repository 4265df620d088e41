"""Eight-bit storage: what comes back, what it weighs, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import refused
from zoo.checkpoints.packed import pack, unpack


@given(st.integers(0, 2**31), st.floats(1e-4, 1e3), st.sampled_from([(3, 5), (4, 2, 3, 3), (1, 1)]))
def test_every_number_comes_back_within_half_a_step_of_its_row(seed, size, shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size
    back = unpack(pack({"w": tensor}), what="these")["w"]
    step = tensor.flatten(1).abs().amax(1) / 127 * 1.002 + 2**-14
    assert ((back - tensor).flatten(1).abs() <= 0.5 * step[:, None] + 1e-12).all()


def test_vectors_and_whole_numbers_stay_and_zeros_stay_zeros():
    given = {"bias": torch.randn(3), "ids": torch.arange(4).view(2, 2), "w": torch.zeros(2, 3)}
    packed = pack(given)
    assert set(packed) == {"bias", "ids", "w.int8", "w.scale"}
    back = unpack(packed, what="these")
    assert set(back) == set(given)
    assert all(torch.equal(back[n], given[n]) for n in given)


def test_it_weighs_half_of_float16():
    packed = pack({"w": torch.randn(64, 64, 3, 3)})
    assert sum(t.numel() * t.element_size() for t in packed.values()) < 0.51 * 64 * 64 * 9 * 2


def test_a_file_without_packed_tensors_is_unchanged():
    given = {"logit_scale": torch.tensor(1.0), "norm.scale": torch.randn(3), "w": torch.randn(2, 2)}
    assert unpack(given, what="these") == given


@pytest.mark.parametrize("scale", [None, torch.ones(3), torch.ones(2, 1)])
def test_a_missing_or_wrong_scale_is_refused_by_name(scale):
    tensors = {"w.int8": torch.ones(2, 4, dtype=torch.int8), **({} if scale is None else {"w.scale": scale})}
    with refused("tensor-missing", naming="'w.int8'"):
        unpack(tensors, what="these")
