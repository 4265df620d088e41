"""The U-Net against recorded outputs of three more originals: Ho et al.'s DDPM, improved DDPM, and EDM's DhariwalUNet.

The config.json of each says how it was recorded. Each comparison must fail where one switch that tensors don't show
stands wrong.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests import golden_sets
from tests.networks.random_weights import relative
from tests.networks.test_adm_golden import another_class, arguments, norm_eps, qkv_order
from zoo.checkpoints.files import load_strict
from zoo.families.ddpm.layout import SWITCHES, unet_tensors_from_ddpm
from zoo.families.edm.layout import unet_tensors_from_edm
from zoo.networks.blocks import AttentionBlock, ResBlock
from zoo.networks.unet import UNet

ADM_OF_EDM = "edm/iddpm_adm_cond"


def recorded(name):
    """(the original constructor's arguments, its weights, inputs and outputs)."""
    folder = golden_sets.folder(name)
    said = json.loads((folder / "config.json").read_text())
    if "exponents" in said:  # weights are whole numbers times powers of two, a quarter of the bytes
        weights = load_file(folder / "weights_int8.safetensors")
        tensors = {n: t.double() * 2.0 ** said["exponents"][n] for n, t in weights.items()}
    else:
        tensors = torch.load(folder / "model.pt", weights_only=True)
    return said["constructor"], tensors, load_file(folder / "io.safetensors")


def loaded(tensors, *, dtype=torch.float64, **arguments):
    with torch.device("meta"):
        model = UNet(attention="plain", context_width=None, **arguments)
    load_strict(model, tensors, what="the recorded weights", dtype=dtype)
    return model.eval().requires_grad_(False)


def ho(name, *, dtype=torch.float64, **changes):
    said, tensors, io = recorded(name)
    given = {
        "in_channels": said["in_channels"], "out_channels": said["out_ch"], "width": said["ch"],
        "mult": said["ch_mult"], "blocks": said["num_res_blocks"], "attention_levels": (1,), "heads": 1,
        **SWITCHES, **changes,
    }  # fmt: skip
    return loaded(unet_tensors_from_ddpm(tensors), dtype=dtype, **given), io


def improved(name, *, dtype=torch.float64, **changes):
    said, tensors, io = recorded(name)
    said = {"num_head_channels": -1, "use_new_attention_order": False, "resblock_updown": False, **said}
    given = {**arguments(said, channels=3), "out_channels": said["out_channels"], **changes}
    return loaded(tensors, dtype=dtype, **given), io


def out(made, *, dtype=torch.float64):
    model, io = made
    return relative(model(io["x"].to(dtype), io["timesteps"].to(dtype)), io["out"].to(dtype))


SETS = {
    ho: ("ddpm/whole_numbers", "ddpm/cifar_style"),
    improved: ("iddpm/whole_numbers", "iddpm/unet_learned_sigma_4heads"),
}
WRONG = {
    ho: ({"norm_eps": 1e-5}, {"downsample_padding": "both"}, {"time_features": "cosines-first"}),
    improved: (
        {"norm_eps": 1e-6},
        {"downsample_padding": "end"},
        {"time_features": "sines-first"},
        {"qkv_order": "new"},
        {"heads": 1},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "original"), golden_sets.cases(*((name, original) for original in SETS for name in SETS[original]))
)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_unet_gives_what_the_original_code_gave(name, original, dtype, close):
    assert out(original(name, dtype=dtype), dtype=dtype) < close


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "original", "wrong"),
    golden_sets.cases(
        *((name, original, wrong) for original in WRONG for name in SETS[original] for wrong in WRONG[original])
    ),
)
def test_recorded_outputs_tell_another_switch(name, original, wrong):
    assert out(original(name, **wrong)) > 1e-5


# EDM: classes, resampling residual blocks, groups of at least four channels.


def dhariwal(dtype=torch.float64):
    said, tensors, io = recorded(ADM_OF_EDM)
    model = loaded(
        unet_tensors_from_edm(tensors), dtype=dtype, in_channels=3, out_channels=6, width=said["model_channels"],
        mult=said["channel_mult"], blocks=said["num_blocks"], attention_levels=(), middle_attention=False, heads=1,
        scale_shift=True, resblock_updown=True, classes=said["label_dim"], groups=2,
    )  # fmt: skip
    # Narrower than 128 channels its norms have fewer groups than 32, each norm as many as it has fours of channels.
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.num_groups = min(32, norm.num_channels // 4)
    return model, io


def denoised(model, io, dtype=torch.float64):
    label = io["class_labels"].argmax(dim=1)
    return relative(model(io["net_in"].to(dtype), io["c_noise"].to(dtype), label=label), io["F_x"].to(dtype))


@pytest.mark.gold(ADM_OF_EDM)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_dhariwals_unet_gives_what_edms_code_gave(dtype, close):
    assert denoised(*dhariwal(dtype), dtype) < close


def fewer_groups(model):
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.num_groups = 2


def added_time(model):
    for block in model.modules():
        if isinstance(block, ResBlock):
            block.emb_layers[1].weight.copy_(block.emb_layers[1].weight.roll(block.out_layers[0].num_channels, dims=0))


@pytest.mark.gold(ADM_OF_EDM)
@pytest.mark.parametrize("flip", [norm_eps, fewer_groups, another_class, added_time])
def test_edms_outputs_tell_another_switch(flip):
    model, io = dhariwal()
    flip(model)
    assert denoised(model, io) > 1e-5


def test_rows_of_edms_attention_come_out_by_head():
    # As in ADM, whose network it is: heads of 64 channels.
    heads, width, channels = 2, 64, 128
    edm = torch.arange(3.0 * channels).view(heads, width, 3)  # a row's number is its place in EDM's file
    named = {"model.enc.8x8_block0.qkv.weight": edm.reshape(-1, 1, 1, 1).expand(-1, channels, 1, 1)}
    rows = unet_tensors_from_edm(named)["input_blocks.0.1.qkv.weight"][:, 0].view(heads, 3, width)
    assert torch.equal(rows, edm.transpose(1, 2))


def test_recordings_have_attention_whose_order_shows():
    model, io = improved("iddpm/whole_numbers")
    assert [b.heads for b in model.modules() if isinstance(b, AttentionBlock)] == [4] * 4
    qkv_order(model)
    assert out((model, io)) > 1e-5
