"""Checkpoints of the original latent diffusion code, read as a user's file is, give its recorded outputs to 1e-5."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests import golden_sets
from tests.networks.random_weights import relative
from zoo.assemble import weights
from zoo.families.stable_diffusion.checkpoint import UNET
from zoo.families.stable_diffusion.containers import open_container
from zoo.families.stable_diffusion.family import stable_diffusion
from zoo.families.stable_diffusion.names import shapes_of
from zoo.families.stable_diffusion.parts import FilePart, card_of
from zoo.families.stable_diffusion.pipeline import denoiser_block
from zoo.families.stable_diffusion.shapes import unet_from_shapes
from zoo.families.stable_diffusion.variants import VARIANTS

AGREES = 1e-5


def network(name, **changes):
    """The U-Net of a checkpoint without a text encoder, as the reader of whole ones makes its part."""
    folder = golden_sets.folder(name)
    said = json.loads((folder / "config.json").read_text())["constructor"]
    container = open_container(folder / "model.ckpt")
    shapes = shapes_of(container, UNET, "network", "original")
    card = card_of(
        FilePart(kind="network", layout="original", container=container, prefix=UNET), name=name, component="unet",
        arguments={**unet_from_shapes(shapes, what=name), "heads": said["num_heads"], **changes}, summary=name,
        denoiser=denoiser_block(VARIANTS["sd-1"], "eps", {}),
    )  # fmt: skip
    return weights(card).network, load_file(folder / "io.safetensors")


@torch.no_grad()
def difference(model, io):
    return relative(model(io["x"], io["timesteps"], context=io["context"]), io["out"])


@pytest.mark.gold("ldm/unet_text", "ldm/unet_inpaint_9ch")
@pytest.mark.parametrize("name", ["ldm/unet_text", "ldm/unet_inpaint_9ch"])
def test_a_text_unet_gives_the_original_codes_output(name):
    assert difference(*network(name)) <= AGREES
    assert difference(*network(name, heads=1)) > AGREES
    assert difference(*network(name, norm_eps=1e-3)) > AGREES


@torch.no_grad()
@pytest.mark.gold("ldm/autoencoder_kl_f2")
def test_a_kl_autoencoder_gives_the_original_codes_outputs():
    folder = golden_sets.folder("ldm/autoencoder_kl_f2")
    source, io = stable_diffusion(folder / "model.ckpt"), load_file(folder / "io.safetensors")
    assert source is not None
    model = weights(source.card("vae", {"scale": "1.0"}, "vae"))
    assert relative(model.encode(io["image"]), io["mode"]) <= AGREES
    assert relative(model.encode(io["image"], io["eps"]), io["sample"]) <= AGREES
    assert relative(model.decode(io["mode"]), io["decoded"]) <= AGREES
    other = weights(source.card("vae", {"scale": "0.18215"}, "vae"))
    assert relative(other.decode(io["mode"]), io["decoded"]) > AGREES
