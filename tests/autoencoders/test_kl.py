"""The KL autoencoder against diffusers' AutoencoderKL with the same weights, and against CompVis' recorded outputs."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests import golden_sets
from tests.networks.random_weights import normal, randomise, relative
from zoo.autoencoders import kl
from zoo.autoencoders.kl import AutoencoderKL
from zoo.checkpoints.files import load_strict
from zoo.families.diffusers.config import kl_config
from zoo.families.diffusers.layout import kl_tensors

AGREES = 1e-8  # in float64
DIFFERS = 1e-6
CONFIGS = {
    "sd-like": {"width": 16, "mult": (1, 2, 4, 4), "blocks": 2, "groups": 8, "scale": 0.18215},
    "shipped-like": {"width": 12, "mult": (1, 2, 3), "blocks": 1, "groups": 4},
    "kl-f4-like": {"channels": 3, "z_channels": 3, "width": 16, "mult": (1, 2), "blocks": 2, "groups": 8},
    "with-attention": {
        "channels": 8, "z_channels": 8, "width": 16, "mult": (1, 2), "blocks": 1, "attention_levels": (1,), "groups": 8,
    },
}  # fmt: skip
RECORDED = "ldm/autoencoder_kl_f2"


def pair(name, *, dtype=torch.float64):
    from diffusers import AutoencoderKL as TheirAutoencoderKL

    ours = randomise(AutoencoderKL(**CONFIGS[name])).to(dtype)
    theirs = TheirAutoencoderKL.from_config(kl_config(ours)).to(dtype).eval()
    theirs.load_state_dict(kl_tensors(ours.state_dict()), strict=True)
    return ours, theirs


@torch.no_grad()
def differences(ours, theirs, *, dtype=torch.float64):
    """Of the mode, a sample, the log-variance and the decoded picture."""
    images = normal(2, 3, 32, 16).to(dtype)
    posterior = theirs.encode(images).latent_dist
    latents = posterior.mean * theirs.config.scaling_factor
    noise = normal(*latents.shape, seed=3).to(dtype)
    drawn = (posterior.mean + posterior.std * noise) * theirs.config.scaling_factor
    decoded = theirs.decode(latents / theirs.config.scaling_factor).sample
    return (
        relative(ours.encode(images), latents),
        relative(ours.encode(images, noise), drawn),
        relative(ours.moments(images)[1], posterior.logvar),
        relative(ours.decode(latents), decoded),
    )


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("name", CONFIGS)
def test_autoencoder_is_diffusers_autoencoder_with_the_same_weights(name):
    assert max(differences(*pair(name))) < AGREES


@pytest.mark.peer
def test_autoencoder_is_diffusers_autoencoder_to_1e_5_in_float32():
    assert max(differences(*pair("shipped-like", dtype=torch.float32), dtype=torch.float32)) < 1e-5


def norm_eps(model, monkeypatch):
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.eps = 1e-5


def downsample_padding(model, monkeypatch):
    monkeypatch.setattr(
        kl.Downsample, "forward", lambda self, x: F.conv2d(x, self.conv.weight, self.conv.bias, stride=2, padding=1)
    )


def upsample_mode(model, monkeypatch):
    monkeypatch.setattr(
        kl.Upsample, "forward", lambda self, x: self.conv(F.interpolate(x, scale_factor=2.0, mode="bilinear"))
    )


def unscaled_attention(model, monkeypatch):
    right = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: right(q, k, v, scale=1.0))


def activation(model, monkeypatch):
    monkeypatch.setattr(F, "silu", F.gelu)


def scale(model, monkeypatch):
    model.scale *= 1.001


def shift(model, monkeypatch):
    model.shift = 0.001


FLIPS = (norm_eps, downsample_padding, upsample_mode, unscaled_attention, activation, scale, shift)


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("flip", FLIPS, ids=lambda f: f.__name__)
def test_comparison_fails_when_one_switch_is_flipped(flip, monkeypatch):
    ours, theirs = pair("sd-like")
    with torch.no_grad():
        images = normal(1, 3, 32, 16)
        latents = theirs.encode(images).latent_dist.mean * theirs.config.scaling_factor
        decoded = theirs.decode(latents / theirs.config.scaling_factor).sample
        assert relative(ours.encode(images), latents) < AGREES
        assert relative(ours.decode(latents), decoded) < AGREES
        flip(ours, monkeypatch)
        found = relative(ours.encode(images), latents), relative(ours.decode(latents), decoded)
    assert max(found) > DIFFERS


def recorded(dtype):
    folder = golden_sets.folder(RECORDED)
    said = json.loads((folder / "config.json").read_text())["constructor"]
    inner = said["ddconfig"]
    with torch.device("meta"):
        model = AutoencoderKL(
            channels=said["embed_dim"], z_channels=inner["z_channels"], width=inner["ch"], mult=inner["ch_mult"],
            blocks=inner["num_res_blocks"], image_channels=inner["in_channels"],
        )  # fmt: skip
    state = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    load_strict(model, state, what="the recorded weights", other=["loss."], dtype=dtype)
    return model.eval(), load_file(folder / "io.safetensors")


@pytest.mark.gold(RECORDED)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
@torch.no_grad()
def test_autoencoder_gives_what_the_original_code_gave(dtype, close):
    model, io = recorded(dtype)
    io = {k: t.to(dtype) for k, t in io.items()}
    mean, log_variance = model.moments(io["image"])
    assert relative(mean, io["mode"]) < close
    assert relative(log_variance, io["logvar"]) < close
    assert relative(model.encode(io["image"], io["eps"]), io["sample"]) < close
    assert relative(model.decode(io["mode"]), io["decoded"]) < close


@pytest.mark.gold(RECORDED)
@pytest.mark.parametrize("flip", [norm_eps, downsample_padding, upsample_mode], ids=lambda f: f.__name__)
@torch.no_grad()
def test_recorded_outputs_tell_a_flipped_switch(flip, monkeypatch):
    model, io = recorded(torch.float64)
    io = {k: t.double() for k, t in io.items()}
    flip(model, monkeypatch)
    assert (
        max(relative(model.encode(io["image"]), io["mode"]), relative(model.decode(io["mode"]), io["decoded"])) > 1e-5
    )


@torch.no_grad()
def test_standardised_latents_have_no_mean_and_unit_deviation_and_decode_to_the_same_picture():
    model = randomise(AutoencoderKL(**CONFIGS["shipped-like"]))
    images, noise = normal(4, 3, 16, 16), normal(4, 4, 4, 4, seed=5)
    before = model.encode(images)
    drawn, decoded = model.encode(images, noise), model.decode(before)
    mean, std = before.mean(dim=(0, 2, 3)), before.std(dim=(0, 2, 3))
    model.standardise(mean, std)
    after = model.encode(images)
    assert torch.allclose(after.mean(dim=(0, 2, 3)), torch.zeros(4).double(), atol=1e-10)
    assert torch.allclose(after.std(dim=(0, 2, 3)), torch.ones(4).double())
    assert torch.allclose(model.decode(after), decoded)
    assert torch.allclose(model.encode(images, noise), (drawn - mean.view(1, 4, 1, 1)) / std.view(1, 4, 1, 1))


@torch.no_grad()
def test_decoding_undoes_scale_and_shift():
    plain = randomise(AutoencoderKL(**CONFIGS["shipped-like"]))
    scaled = randomise(AutoencoderKL(**CONFIGS["shipped-like"], scale=0.3, shift=1.5))
    images = normal(1, 3, 16, 16)
    assert torch.allclose(scaled.encode(images), (plain.encode(images) - 1.5) * 0.3)
    assert torch.allclose(scaled.decode(scaled.encode(images)), plain.decode(plain.encode(images)))
