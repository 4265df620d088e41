"""The U-Net against diffusers' UNet2DConditionModel, with the same weights under both libraries' names.

In float64 the two agree to rounding, so that a switch that moves the output by a millionth is seen.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.networks.random_weights import normal, randomise, relative
from zoo.families.diffusers.config import unet_config
from zoo.families.diffusers.layout import unet_tensors
from zoo.networks import transformer, unet
from zoo.networks.transformer import CrossAttention, SpatialTransformer
from zoo.networks.unet import Downsample, ResBlock, UNet, Upsample

AGREES = 1e-8  # in float64
DIFFERS = 1e-6
CONFIGS = {
    "sd1-like": {
        "width": 16, "mult": (1, 2, 4, 4), "blocks": 2, "attention_levels": (0, 1, 2), "heads": 2, "groups": 8,
    },
    "sd2-like": {
        "width": 16, "mult": (1, 2, 2), "blocks": 2, "attention_levels": (0, 1), "head_width": 8, "groups": 8,
        "projection": "linear",
    },
    "two-deep": {
        "width": 16, "mult": (1, 2), "blocks": 1, "attention_levels": (1,), "heads": 4, "groups": 4, "depth": 2,
    },
    "shipped-like": {"width": 24, "mult": (1, 3), "blocks": 1, "attention_levels": (1,), "heads": 3, "groups": 8},
    "inpainting": {
        "in_channels": 9, "width": 16, "mult": (1, 2), "blocks": 1, "attention_levels": (0,), "heads": 2, "groups": 8,
    },
    "one-level": {"width": 16, "mult": (1,), "blocks": 3, "attention_levels": (0,), "heads": 2, "groups": 8},
}  # fmt: skip


def pair(name, *, dtype=torch.float64):
    from diffusers import UNet2DConditionModel

    ours = randomise(UNet(context_width=20, **CONFIGS[name])).to(dtype)
    theirs = UNet2DConditionModel.from_config(unet_config(ours)).to(dtype).eval()
    theirs.load_state_dict(unet_tensors(ours.state_dict()), strict=True)
    return ours, theirs


def inputs(ours, *, dtype=torch.float64):
    x = normal(2, ours.in_channels, 16, 8, seed=1).to(dtype)
    return x, torch.tensor([3.0, 741.0], dtype=dtype), normal(2, 5, 20, seed=2).to(dtype)


@torch.no_grad()
def difference(ours, theirs, *, dtype=torch.float64):
    x, time, context = inputs(ours, dtype=dtype)
    expected = theirs(x, time, encoder_hidden_states=context).sample
    return relative(ours(x, time, context=context), expected)


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("name", CONFIGS)
def test_unet_is_diffusers_unet_with_the_same_weights(name):
    ours, theirs = pair(name)
    assert difference(ours, theirs) < AGREES


@pytest.mark.slow
@pytest.mark.peer
def test_unet_is_diffusers_unet_to_1e_5_in_float32():
    assert difference(*pair("sd1-like", dtype=torch.float32), dtype=torch.float32) < 1e-5


@pytest.mark.peer
@torch.no_grad()
def test_a_mask_hides_tokens_as_in_diffusers():
    ours, theirs = pair("shipped-like")
    x, time, context = inputs(ours)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    expected = theirs(x, time, encoder_hidden_states=context, encoder_attention_mask=mask).sample
    # diffusers hides by adding -10000, zoo by leaving out.
    assert relative(ours(x, time, context=context, mask=mask), expected) < AGREES
    assert relative(ours(x, time, context=context), expected) > DIFFERS
    assert relative(ours(x, time, context=context, mask=~mask), expected) > DIFFERS


def norm_eps(model, monkeypatch):
    for block in model.modules():
        if isinstance(block, ResBlock):
            block.in_layers[0].eps = block.out_layers[0].eps = 1e-6


def last_norm_eps(model, monkeypatch):
    model.out[0].eps = 1e-6


def transformer_norm_eps(model, monkeypatch):
    for block in model.modules():
        if isinstance(block, SpatialTransformer):
            block.norm.eps = 1e-5


def layer_norm_eps(model, monkeypatch):
    for norm in model.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = 1e-6


def heads(model, monkeypatch):
    for attention in model.modules():
        if isinstance(attention, CrossAttention):
            attention.heads //= 2


def downsample_padding(model, monkeypatch):
    monkeypatch.setattr(
        Downsample, "forward", lambda self, x: F.conv2d(F.pad(x, (0, 1, 0, 1)), self.op.weight, self.op.bias, stride=2)
    )


def upsample_mode(model, monkeypatch):
    monkeypatch.setattr(
        Upsample, "forward", lambda self, x: self.conv(F.interpolate(x, scale_factor=2.0, mode="bilinear"))
    )


def sines_first(model, monkeypatch):
    right = unet.timestep_embedding
    monkeypatch.setattr(unet, "timestep_embedding", lambda t, width: right(t, width).roll(width // 2, dims=-1))


def time_divisor(model, monkeypatch):
    def of_half_minus_one(t, width):
        frequencies = 10000.0 ** (-torch.arange(width // 2) / (width // 2 - 1))
        angles = t.float()[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    monkeypatch.setattr(unet, "timestep_embedding", of_half_minus_one)


def tanh_gelu(model, monkeypatch):
    right = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x: right(x, approximate="tanh"))


def gate_and_value_swapped(model, monkeypatch):
    def forward(self, x):
        gate, x = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)

    monkeypatch.setattr(transformer.GEGLU, "forward", forward)


def without_cross_attention(model, monkeypatch):
    def forward(self, x, context, mask):
        x = x + self.attn1(self.norm1(x))
        return x + self.ff(self.norm3(x))

    monkeypatch.setattr(transformer.BasicTransformerBlock, "forward", forward)


FLIPS = (
    norm_eps, last_norm_eps, transformer_norm_eps, layer_norm_eps, heads, downsample_padding, upsample_mode,
    sines_first, time_divisor, tanh_gelu, gate_and_value_swapped, without_cross_attention,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("name", ["sd1-like", "sd2-like"])
@pytest.mark.parametrize("flip", FLIPS, ids=lambda f: f.__name__)
def test_comparison_fails_when_one_switch_is_flipped(name, flip, monkeypatch):
    ours, theirs = pair(name)
    x, time, context = inputs(ours)
    with torch.no_grad():
        expected = theirs(x, time, encoder_hidden_states=context).sample
        assert relative(ours(x, time, context=context), expected) < AGREES
        flip(ours, monkeypatch)
        assert relative(ours(x, time, context=context), expected) > DIFFERS
