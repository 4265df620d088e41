"""Sound and volumes: networks of one and three spatial dimensions compute what those of pictures do.

Where a sample is the same all along one more axis, and each kernel reads the middle of that axis only, a network with
that axis gives what the network without it gives, all along it.
"""

import pytest
import torch

from tests.networks.random_weights import normal, randomise
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Condition
from zoo.networks.classifier import NoiseAwareClassifier
from zoo.networks.unet import UNet
from zoo.samplers.ddim import DDIM

SMALL = {"in_channels": 2, "out_channels": 2, "width": 16, "mult": (1, 2), "blocks": 1, "groups": 8, "heads": 2}
PLAIN = {**SMALL, "attention": "plain", "attention_levels": (0, 1), "context_width": None}
KINDS = {
    "plain": PLAIN,
    "updown": {**PLAIN, "resblock_updown": True, "scale_shift": True},
    "ho": {**PLAIN, "norm_eps": 1e-6, "downsample_padding": "end", "time_features": "sines-first"},
    "pooled": {**PLAIN, "conv_resample": False},
    "text": {**SMALL, "attention_levels": (1,), "context_width": 6},
    "text-linear": {**SMALL, "attention_levels": (1,), "context_width": 6, "projection": "linear"},
}
CLASSIFIER = {
    "classes": 3, "size": 8, "in_channels": 2, "width": 16, "mult": (1, 2), "blocks": 1, "attention_levels": (1,),
    "heads": 2, "groups": 8,
}  # fmt: skip


def widened(flat, wide):
    """The weights of a network with one more dimension: those of `flat`, in the middle of each kernel's last axis."""
    state, wide = {}, wide.double()
    for name, tensor in wide.state_dict().items():
        own = flat.state_dict()[name]
        if own.ndim < tensor.ndim:
            spread = torch.zeros_like(tensor)
            spread[..., tensor.shape[-1] // 2] = own
            own = spread
        state[name] = own
    wide.load_state_dict(state)
    return wide.eval().requires_grad_(False)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [1, 2])
def test_a_sample_that_is_the_same_along_one_more_axis_is_denoised_alike(kind, dims):
    flat = randomise(UNet(dims=dims, **KINDS[kind]))
    wide = widened(flat, UNet(dims=dims + 1, **KINDS[kind]))
    x, time = normal(2, 2, *[4, 6][:dims]), torch.tensor([3.0, 700.0])
    told = {"context": normal(2, 5, 6, seed=3)} if kind.startswith("text") else {}
    expected = flat(x, time, **told)
    found = wide(x[..., None].expand(*x.shape, 4), time, **told)
    assert torch.allclose(found, expected[..., None].expand_as(found), rtol=1e-9, atol=1e-9)
    assert expected.std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("dims", [1, 3])
def test_every_axis_is_seen(dims):
    model = randomise(UNet(dims=dims, **PLAIN))
    x, time = normal(1, 2, *[4] * dims), torch.tensor([10.0])
    before = model(x, time)
    assert before.shape == x.shape
    for axis in range(2, 2 + dims):
        assert not torch.allclose(model(x.flip(axis), time), before.flip(axis), atol=1e-3)


def test_pictures_are_the_default_and_keep_their_names():
    assert UNet(**PLAIN).state_dict().keys() == UNet(dims=3, **PLAIN).state_dict().keys()
    assert UNet(**PLAIN).input_blocks[0][0].weight.ndim == 4


@pytest.mark.parametrize("pool", ["attention", "mean"])
@pytest.mark.parametrize("dims", [1, 3])
def test_a_classifier_of_any_dimensions_tells_classes(dims, pool):
    model = randomise(NoiseAwareClassifier(dims=dims, pool=pool, **CLASSIFIER))
    x = normal(2, 2, *[8] * dims)
    logits = model(x, torch.tensor([5.0, 5.0]))
    assert logits.shape == (2, 3)
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)


@pytest.mark.parametrize("dims", [1, 3])
def test_sound_and_volumes_are_sampled_as_pictures_are(dims):
    model = randomise(UNet(dims=dims, **PLAIN))
    schedule, sampler = CosineSchedule(), DDIM(steps=3)
    table = sampler.plan(schedule)
    denoiser = Denoiser(network=model, schedule=schedule, parameterization=V(), time_input="index")
    x = normal(2, 2, *[4] * dims)
    end = sampler(denoiser.bind(Condition(), table), table, x, noise=lambda *_: x)
    assert end.shape == x.shape
    assert bool(torch.isfinite(end).all())
