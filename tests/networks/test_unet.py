import pytest
import torch

from tests.networks.random_weights import normal, randomise
from zoo.networks.unet import UNet


def test_unet_keeps_the_size_of_what_it_is_given():
    model = UNet(in_channels=5, out_channels=3, width=16, mult=(1, 2), blocks=1, heads=2, context_width=6, groups=8)
    out = model(torch.zeros(2, 5, 6, 10), torch.zeros(2), context=torch.zeros(2, 3, 6))
    assert out.shape == (2, 3, 6, 10)


def test_a_new_unet_predicts_zero():
    model = UNet(width=16, mult=(1, 2), blocks=1, attention_levels=(1,), heads=2, context_width=6, groups=8)
    out = model(torch.randn(1, 4, 8, 8), torch.tensor([5.0]), context=torch.randn(1, 3, 6))
    assert not out.any()


@torch.no_grad()
def test_time_and_context_of_a_sample_reach_only_that_sample():
    model = randomise(UNet(width=16, mult=(1, 2), blocks=1, attention_levels=(1,), heads=2, context_width=6, groups=8))
    x, time, context = normal(2, 4, 8, 8), torch.tensor([10.0, 500.0]), normal(2, 3, 6, seed=2)
    before = model(x, time, context=context)
    for changed in (
        (x, time + torch.tensor([0.0, 9.0]), context),
        (x, time, context * torch.tensor([1, 2.0]).view(2, 1, 1)),
    ):
        after = model(changed[0], changed[1], context=changed[2])
        assert torch.allclose(after[0], before[0], atol=1e-12)
        assert not torch.allclose(after[1], before[1], atol=1e-3)


@pytest.mark.parametrize("given", [{}, {"heads": 2, "head_width": 8}])
def test_heads_or_head_width_must_be_said(given):
    with pytest.raises(ValueError, match="either heads or head_width"):
        UNet(width=16, groups=8, **given)
