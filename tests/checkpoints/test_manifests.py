"""Networks have the names and shapes of published checkpoints, in the original layout and in diffusers'.

tests/golden/manifests holds tensor names and shapes only; networks are built without memory.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch

from zoo.autoencoders.kl import AutoencoderKL
from zoo.conditioners.clip_text import ClipText
from zoo.families.diffusers.layout import (
    CLIP_PREFIX,
    clip_text_tensors,
    kl_names,
    kl_tensors,
    unet_names,
    unet_tensors,
)
from zoo.networks.unet import UNet

FOLDER = Path(__file__).parents[1] / "golden" / "manifests"


def manifest(name, layout):
    shapes = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))[layout]
    return {n: tuple(s) for n, s in shapes.items()}


def shapes(tensors):
    return {n: tuple(t.shape) for n, t in tensors.items()}


def on_meta(component, **config):
    with torch.device("meta"):
        return component(**config).state_dict()


UNETS = {"unet": {"heads": 8}, "unet-2": {"head_width": 64, "context_width": 1024, "projection": "linear"}}
AUTOENCODERS = {
    "kl-f4": ({"channels": 3, "z_channels": 3, "mult": (1, 2, 4)}, None),
    "kl-f8": ({}, ("stable_diffusion", "diffusers/vae")),
    "kl-f16": ({"channels": 16, "z_channels": 16, "mult": (1, 1, 2, 2, 4), "attention_levels": (4,)}, None),
    "x4-upscaler": ({"mult": (1, 2, 4)}, ("autoencoder_kl", "diffusers/x4-upscaler")),
}


@pytest.mark.parametrize("name", UNETS)
def test_unet_is_stable_diffusions_in_both_layouts(name):
    state = on_meta(UNet, **UNETS[name])
    assert shapes(state) == manifest("stable_diffusion", f"original/{name}")
    assert shapes(unet_tensors(state)) == manifest("stable_diffusion", f"diffusers/{name}")


def test_inpainting_unet_is_stable_diffusions():
    state = on_meta(UNet, heads=8, in_channels=9)
    assert shapes(state) == manifest("stable_diffusion", "original/unet-inpainting")


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_autoencoder_is_the_published_one_in_both_layouts(name):
    config, diffusers = AUTOENCODERS[name]
    state = on_meta(AutoencoderKL, **config)
    assert shapes(state) == manifest("autoencoder_kl", f"original/{name}")
    if diffusers is not None:
        assert shapes(kl_tensors(state)) == manifest(*diffusers)


def test_text_tower_is_stable_diffusions_under_transformers_names():
    found = shapes(clip_text_tensors(on_meta(ClipText), layers=12))
    assert {n.removeprefix(CLIP_PREFIX): s for n, s in found.items()} == manifest(
        "stable_diffusion", "transformers/clip-text"
    )


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("levels", [(), (0,), (1,), (0, 2)])
def test_unet_names_are_a_bijection_whatever_the_shape(blocks, levels):
    names = on_meta(UNet, heads=2, width=32, mult=(1, 2, 2), blocks=blocks, attention_levels=levels)
    keys = unet_names(names)
    assert set(keys) == set(names)
    assert len(set(keys.values())) == len(names)


def test_wrong_number_of_blocks_is_not_a_published_layout():
    theirs = manifest("stable_diffusion", "diffusers/unet")
    assert set(unet_names(on_meta(UNet, heads=8)).values()) == set(theirs)
    assert set(unet_names(on_meta(UNet, heads=8, blocks=3)).values()) != set(theirs)
    vae = on_meta(AutoencoderKL, mult=(1, 2, 4, 4, 4))
    assert set(kl_names(vae).values()) != set(manifest("stable_diffusion", "diffusers/vae"))


def test_an_unknown_name_has_no_place_in_the_layout():
    with pytest.raises(KeyError, match="style_emb"):
        unet_names(["style_emb.weight"])
