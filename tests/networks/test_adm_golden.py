"""U-Net and classifier against recorded outputs of OpenAI's guided-diffusion; the config.json of each says how.

Its super-resolution network enlarges the small picture bilinearly and joins it to x_t; here the test does that, as a
denoiser does with what `low_res` gives.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests import golden_sets
from tests.networks.random_weights import relative
from zoo.checkpoints.files import load_strict
from zoo.networks.blocks import AttentionBlock, ResBlock
from zoo.networks.classifier import NoiseAwareClassifier
from zoo.networks.unet import UNet

UNETS = {"adm/unet_plain": 3, "adm/superres_x2": 6, "adm/unet_learned_sigma_cond": 3}  # channels that each is given


def arguments(said, *, channels):
    """The original constructor's arguments under zoo's names."""
    levels = [i for i in range(len(said["channel_mult"])) if 2**i in said["attention_resolutions"]]
    per_head = said["num_head_channels"]
    return {
        "in_channels": channels, "width": said["model_channels"], "mult": said["channel_mult"],
        "blocks": said["num_res_blocks"], "attention_levels": levels,
        "heads": said["num_heads"] if per_head == -1 else None, "head_width": None if per_head == -1 else per_head,
        "qkv_order": "new" if said["use_new_attention_order"] else "legacy", "scale_shift": True,
        "resblock_updown": said["resblock_updown"], "dropout": said["dropout"],
    }  # fmt: skip


def constructor(name):
    """The original constructor's arguments of a recording."""
    return json.loads((golden_sets.folder(name) / "config.json").read_text())["constructor"]


def unet(name, *, dtype=torch.float64, **changes):
    said = constructor(name)
    said = {"num_head_channels": -1, "use_new_attention_order": False, "resblock_updown": False, **said}
    given = {
        **arguments(said, channels=UNETS[name]), "attention": "plain", "context_width": None,
        "out_channels": said["out_channels"], "classes": said.get("num_classes"),
        "heads_up": None if said["num_heads_upsample"] == -1 else said["num_heads_upsample"],
    }  # fmt: skip
    with torch.device("meta"):
        model = UNet(**{**given, **changes})
    return filled(model, name, dtype=dtype)


def classifier(*, dtype=torch.float64):
    name = "adm/classifier_attention_pool"
    said = constructor(name)
    with torch.device("meta"):
        model = NoiseAwareClassifier(
            **arguments(said, channels=3), classes=said["out_channels"], size=said["image_size"], pool=said["pool"]
        )
    return filled(model, name, dtype=dtype)


def filled(model, name, *, dtype):
    folder = golden_sets.folder(name)
    tensors = torch.load(folder / "model.pt", weights_only=True)
    load_strict(model, tensors, what="the recorded weights", dtype=dtype)
    io = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(folder / "io.safetensors").items()}
    return model.eval().requires_grad_(False), io


def drawn(model, io):
    """What the U-Net makes of the recorded inputs."""
    x = io["x"]
    if "low_res" in io:
        x = torch.cat([x, F.interpolate(io["low_res"], x.shape[2:], mode="bilinear")], dim=1)
    return model(x, io["timesteps"], **({"label": io["y"]} if "y" in io else {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_sets.cases(*UNETS))
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_unet_gives_what_the_original_code_gave(name, dtype, close):
    model, io = unet(name, dtype=dtype)
    assert relative(drawn(model, io), io["out"]) < close


def guided(model, io):
    x = io["x"].clone().requires_grad_()
    logits = model(x, io["timesteps"])
    log_prob = F.log_softmax(logits, dim=1).gather(1, io["y"][:, None])[:, 0]
    (gradient,) = torch.autograd.grad(log_prob.sum(), x)
    return {"logits": logits.detach(), "log_prob": log_prob.detach(), "grad": gradient}


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_classifier_and_its_gradient_are_what_the_original_code_gave(dtype, close):
    model, io = classifier(dtype=dtype)
    for name, found in guided(model, io).items():
        assert relative(found, io[name]) < close, name


def qkv_order(model):
    for block in model.modules():
        if isinstance(block, AttentionBlock):
            block.order = "legacy" if block.order == "new" else "new"


def more_heads(model):
    for block in model.modules():
        if isinstance(block, AttentionBlock):
            block.heads *= 2


def heads_as_down(model):
    for block in model.output_blocks:
        block[1].heads = 4


def norm_eps(model):
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.eps = 1e-6


def another_class(model):
    model.label_emb.weight.copy_(model.label_emb.weight.roll(1, dims=0))


def pool_heads(model):
    model.out[2].heads *= 2


def resampled_elsewhere(model):
    for block in model.modules():
        if isinstance(block, ResBlock) and block.resample == "down":
            block.in_layers[2].stride, block.resample = (2, 2), None
            block.skip_connection = torch.nn.AvgPool2d(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flip"),
    golden_sets.cases(
        ("adm/unet_plain", qkv_order),
        ("adm/unet_plain", heads_as_down),
        ("adm/unet_plain", norm_eps),
        ("adm/superres_x2", qkv_order),
        ("adm/superres_x2", more_heads),
        ("adm/superres_x2", norm_eps),
        ("adm/unet_learned_sigma_cond", qkv_order),
        ("adm/unet_learned_sigma_cond", more_heads),
        ("adm/unet_learned_sigma_cond", another_class),
    ),
)
def test_recorded_outputs_tell_another_switch_of_the_unet(name, flip):
    model, io = unet(name)
    flip(model)
    assert relative(drawn(model, io), io["out"]) > 1e-5


@pytest.mark.parametrize("flip", [qkv_order, norm_eps, pool_heads, resampled_elsewhere])
def test_recorded_outputs_tell_another_switch_of_the_classifier(flip):
    model, io = classifier()
    flip(model)
    assert relative(guided(model, io)["logits"], io["logits"]) > 1e-5
