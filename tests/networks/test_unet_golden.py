"""The U-Net against recorded outputs of CompVis' latent diffusion; the config.json of each says how."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import golden_sets
from tests.networks.random_weights import relative
from zoo.checkpoints.files import load_strict
from zoo.networks.unet import UNet

NAMES = ("ldm/unet_text", "ldm/unet_inpaint_9ch")
PREFIX = "model.diffusion_model."


def recorded(name, *, dtype=torch.float64, **changes):
    folder = golden_sets.folder(name)
    said = json.loads((folder / "config.json").read_text())["constructor"]
    with torch.device("meta"):
        given: dict[str, Any] = {
            "in_channels": said["in_channels"], "out_channels": said["out_channels"], "width": said["model_channels"],
            "mult": said["channel_mult"], "blocks": said["num_res_blocks"], "heads": said["num_heads"],
            "attention_levels": [i for i in range(len(said["channel_mult"])) if 2**i in said["attention_resolutions"]],
            "depth": said["transformer_depth"], "context_width": said["context_dim"],
        }  # fmt: skip
        model = UNet(**{**given, **changes})
    state = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    tensors = {k.removeprefix(PREFIX): t for k, t in state.items() if k.startswith(PREFIX)}
    load_strict(model, tensors, what="the recorded weights", dtype=dtype)
    io = {k: t.to(dtype) for k, t in load_file(folder / "io.safetensors").items()}
    return model.eval().requires_grad_(False), io


def apart(model, io):
    return relative(model(io["x"], io["timesteps"], context=io["context"]), io["out"])


@pytest.mark.parametrize("name", golden_sets.cases(*NAMES))
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_unet_gives_what_the_original_code_gave(name, dtype, close):
    assert apart(*recorded(name, dtype=dtype)) < close


def another_norm_eps(model):
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm) and norm.eps == 1e-5:
            norm.eps = 1e-6


def untimed(model):
    model.time_embed[-1].weight.zero_()


# The norms of unet_text have a group a channel, which cancels what time adds; those of unet_inpaint_9ch have not.
@pytest.mark.parametrize(
    ("name", "flip"),
    golden_sets.cases(
        ("ldm/unet_text", another_norm_eps),
        ("ldm/unet_inpaint_9ch", another_norm_eps),
        ("ldm/unet_inpaint_9ch", untimed),
    ),
)
def test_recorded_outputs_tell_another_network(name, flip):
    model, io = recorded(name)
    flip(model)
    assert apart(model, io) > 1e-5


@pytest.mark.parametrize(
    ("name", "wrong"),
    golden_sets.cases(
        ("ldm/unet_text", {"heads": 1}),
        ("ldm/unet_text", {"downsample_padding": "end"}),
        ("ldm/unet_text", {"norm_eps": 1e-6}),
        ("ldm/unet_inpaint_9ch", {"heads": 1}),
    ),
)
def test_recorded_outputs_tell_another_switch(name, wrong):
    assert apart(*recorded(name, **wrong)) > 1e-5
