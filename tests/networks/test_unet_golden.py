"""The U-Net against recorded outputs of CompVis' latent diffusion; tests/golden/ldm/unet_text/config.json says how."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.networks.random_weights import relative
from zoo.checkpoints.files import load_strict
from zoo.networks.unet import UNet

GOLDEN = Path(__file__).parents[1] / "golden" / "ldm" / "unet_text"
PREFIX = "model.diffusion_model."


def recorded(dtype, **changes):
    said = json.loads((GOLDEN / "config.json").read_text())["constructor"]
    with torch.device("meta"):
        given: dict[str, Any] = {
            "in_channels": said["in_channels"], "out_channels": said["out_channels"], "width": said["model_channels"],
            "mult": said["channel_mult"], "blocks": said["num_res_blocks"], "heads": said["num_heads"],
            "attention_levels": [level for level in range(2) if 2**level in said["attention_resolutions"]],
            "depth": said["transformer_depth"], "context_width": said["context_dim"],
        }  # fmt: skip
        model = UNet(**{**given, **changes})
    state = torch.load(GOLDEN / "model.ckpt", weights_only=True)["state_dict"]
    tensors = {k.removeprefix(PREFIX): t for k, t in state.items() if k.startswith(PREFIX)}
    load_strict(model, tensors, what="the recorded weights", dtype=dtype)
    return model.eval(), load_file(GOLDEN / "io.safetensors")


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
@torch.no_grad()
def test_unet_gives_what_the_original_code_gave(dtype, close):
    model, io = recorded(dtype)
    found = model(io["x"].to(dtype), io["timesteps"].to(dtype), context=io["context"].to(dtype))
    assert relative(found, io["out"].to(dtype)) < close


@torch.no_grad()
def test_recorded_outputs_tell_another_norm_eps():
    model, io = recorded(torch.float64)
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm) and norm.eps == 1e-5:
            norm.eps = 1e-6
    found = model(io["x"].double(), io["timesteps"].double(), context=io["context"].double())
    assert relative(found, io["out"].double()) > 1e-5


# Its norms have a group a channel, which cancels what time adds: tests/networks/test_unet_diffusers.py sees that.
@pytest.mark.parametrize("wrong", [{"heads": 1}, {"downsample_padding": "end"}, {"norm_eps": 1e-6}])
@torch.no_grad()
def test_recorded_outputs_tell_another_switch(wrong):
    model, io = recorded(torch.float64, **wrong)
    found = model(io["x"].double(), io["timesteps"].double(), context=io["context"].double())
    assert relative(found, io["out"].double()) > 1e-5
