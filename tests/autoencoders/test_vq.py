"""The VQ autoencoder against CompVis' recorded outputs."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests import golden_sets
from tests.networks.random_weights import normal, randomise, relative
from zoo.autoencoders.vq import AutoencoderVQ
from zoo.checkpoints.files import load_strict


def recorded(dtype):
    folder = golden_sets.folder("ldm/autoencoder_vq")
    said = json.loads((folder / "config.json").read_text())["constructor"]
    inner = said["ddconfig"]
    with torch.device("meta"):
        model = AutoencoderVQ(
            channels=said["embed_dim"], z_channels=inner["z_channels"], codes=said["n_embed"], width=inner["ch"],
            mult=inner["ch_mult"], blocks=inner["num_res_blocks"],
        )  # fmt: skip
    state = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    load_strict(model, state, what="the recorded weights", other=["loss."], dtype=dtype)
    return model.eval(), load_file(folder / "io.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_autoencoder_gives_what_the_original_code_gave(dtype):
    model, io = recorded(dtype)
    image, latent = io["image"].to(dtype), io["latent"].to(dtype)
    assert relative(model.encode(image), latent) < 1e-5
    assert torch.equal(model.quantize.indices(latent), io["indices"])
    assert relative(model.quantize(latent), io["quantized"].to(dtype)) < 1e-6
    assert relative(model.decode(latent), io["decoded"].to(dtype)) < 1e-5
    assert relative(model.reconstruct(latent), io["decoded_unquantized"].to(dtype)) < 1e-5
    # and the two are told apart
    assert relative(model.reconstruct(latent), io["decoded"].to(dtype)) > 1e-3


def small():
    return randomise(AutoencoderVQ(channels=3, z_channels=3, codes=16, width=8, mult=(1, 2), blocks=1, groups=4))


@torch.no_grad()
def test_the_nearest_entry_is_nearest():
    model, z = small().double(), normal(2, 3, 4, 4).double()
    apart = (z[:, None] - model.quantize.embedding.weight.view(1, 16, 3, 1, 1)).square().sum(dim=2)
    assert torch.equal(model.quantize.indices(z), apart.argmin(dim=1))


@torch.no_grad()
def test_standardised_latents_choose_the_same_entries_and_decode_to_the_same_picture():
    model, images = small().double(), normal(4, 3, 16, 16).double()
    before = model.encode(images)
    indices, decoded = model.quantize.indices(before), model.decode(before)
    model.standardise(before.mean(dim=(0, 2, 3)), before.std(dim=(0, 2, 3)))
    after = model.encode(images)
    assert torch.equal(model.quantize.indices(after), indices)
    assert torch.allclose(model.decode(after), decoded)
    assert torch.allclose(after.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-10)
    assert float(after.var(dim=(0, 2, 3)).mean()) == pytest.approx(1.0)
