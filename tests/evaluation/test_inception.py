"""How the 2015 Inception is run: folded, in small batches, in two precisions. Its values: test_torch_fidelity.py."""

from __future__ import annotations

import pytest
import torch

from zoo.evaluation.extractors import inception, inception_folded
from zoo.evaluation.extractors.inception import Inception2015


def pictures(count, seed=0):
    return torch.randint(0, 256, (count, 3, 20, 28), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture(scope="module")
def extractor():
    return Inception2015(seed=1)


@pytest.mark.slow
def test_a_batch_that_the_caches_have_no_room_for_is_split_and_its_features_are_the_same(extractor, monkeypatch):
    sizes = []
    forward = inception.FoldedInception.__call__

    def counted(self, x, layers=("pool",)):
        sizes.append(len(x))
        return forward(self, x, layers)

    monkeypatch.setattr(inception.FoldedInception, "__call__", counted)
    shown = pictures(3)
    whole = extractor.images(shown)
    monkeypatch.setattr(inception, "CPU_BATCH", 2)
    parts = extractor.images(shown, batch=64)
    assert sizes == [3, 2, 1]
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5 * float(whole.max()))


@pytest.mark.slow
def test_weights_that_are_written_to_after_pictures_were_seen_count(extractor):
    shown = pictures(1)
    before = extractor.images(shown)
    bias = extractor.network.get_submodule("Mixed_7c.branch1x1").bn.bias
    with torch.no_grad():
        bias += 1000.0
    after = extractor.images(shown)
    with torch.no_grad():
        bias -= 1000.0
    assert (after - before)[0, :320].min() > 900.0
    assert torch.equal(after[0, 320:], before[0, 320:])
    torch.testing.assert_close(extractor.images(shown), before)


@pytest.mark.slow
def test_bfloat16_is_near_float32_and_not_equal_and_both_give_float32(extractor):
    shown = pictures(2)
    half = Inception2015(seed=1, precision="bfloat16")
    assert half.name == f"{extractor.name}-bf16"
    assert not half.published
    layers = ("pool", "logits", "spatial")
    exact, rounded = extractor.features(shown, layers), half.features(shown, layers)
    for layer in layers:
        assert rounded[layer].dtype == exact[layer].dtype == torch.float32
        apart = float((rounded[layer] - exact[layer]).norm() / exact[layer].norm())
        assert 1e-4 < apart < 0.03, (layer, apart)


@pytest.mark.slow
def test_only_what_was_asked_for_is_given(extractor):
    found = extractor.features(pictures(1), ("spatial",))
    assert {name: tuple(t.shape) for name, t in found.items()} == {"spatial": (1, 2023)}


@pytest.mark.slow
@pytest.mark.parametrize("broken", [AttributeError, NotImplementedError, None])
def test_without_fused_kernels_or_with_wrong_ones_features_are_the_same(extractor, monkeypatch, broken):
    shown = pictures(1)
    before = extractor.images(shown) if broken is None else None

    def other(x, *_, **__):
        if broken is not None:
            raise broken("it isn't there")
        return torch.zeros(2, 32, 5, 5)

    inception_folded.fuses.cache_clear()
    monkeypatch.setattr(inception_folded, "_fused", other)
    try:
        assert not inception_folded.fuses(torch.float32)
        if before is not None:
            plain = Inception2015(seed=1).images(shown)
            torch.testing.assert_close(plain, before, rtol=1e-4, atol=1e-5 * float(before.max()))
    finally:
        inception_folded.fuses.cache_clear()
