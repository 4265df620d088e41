"""A U-Net without text is diffusers' `UNet2DModel`, tensor for tensor."""

from __future__ import annotations

import pytest
import torch

from tests.refusals import refused
from tests.tiny import randomise
from zoo.families.diffusers.unconditional import unconditional_config, unconditional_tensors
from zoo.networks.unet import UNet

TINY = {"in_channels": 3, "out_channels": 3, "width": 8, "mult": (1, 2), "blocks": 1, "groups": 4}
PLAIN = {**TINY, "attention": "plain", "attention_levels": (1,), "context_width": None}


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize(
    "words",
    [
        {"heads": 1},
        {"head_width": 4, "qkv_order": "legacy"},
        {"head_width": 4, "qkv_order": "new"},
        {"heads": 1, "norm_eps": 1e-6, "downsample_padding": "end", "time_features": "sines-first"},
        {"heads": 1, "attention_levels": (0, 1), "blocks": 2},
    ],
    ids=["one head", "legacy heads", "new heads", "Ho et al.", "everywhere"],
)
def test_the_exported_network_computes_the_same(words):
    from diffusers.models.unets.unet_2d import UNet2DModel

    unet = randomise(UNet(**{**PLAIN, **words}), 1)
    theirs = UNet2DModel.from_config(unconditional_config(unet, sample_size=8)).eval()
    theirs.load_state_dict(unconditional_tensors(unet), strict=True)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for t in (0, 7, 999):
        with torch.inference_mode():
            ours, other = unet(x, torch.full((2,), float(t))), theirs(x, t).sample
        assert (ours - other).abs().max() < 1e-5 * ours.abs().max()


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ({"classes": 3}, "export-unfit"),
        ({"middle_attention": False}, "export-unfit"),
        ({"scale_shift": True}, "export-unfit"),
        ({"resblock_updown": True}, "export-unfit"),
        ({"patch": 2}, "export-unfit"),
        ({"stem_width": 4}, "export-unfit: stem_width"),
        ({"mult": (2, 2)}, "export-unfit"),
        ({"heads": 2, "attention_levels": (0, 1)}, "export-unfit"),
    ],
)
def test_what_diffusers_can_not_be_is_refused(words, refusal):
    with refused(refusal):
        unconditional_config(UNet(**{**PLAIN, **({} if "heads" in words else {"heads": 1}), **words}))
