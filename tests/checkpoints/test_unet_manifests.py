"""Two U-Nets and a classifier have the names and shapes of every published file of six families, and no others.

tests/golden/manifests holds tensor names and shapes only; networks are built without memory. What tensors don't show
(heads, orders, epsilons) is said here as the models' cards would say it.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch

from tests.refusals import refused
from zoo.families.ddpm.layout import SWITCHES, unet_tensors_from_ddpm
from zoo.families.edm.layout import unet_tensors_from_edm
from zoo.networks.classifier import NoiseAwareClassifier
from zoo.networks.song_unet import SongUNet
from zoo.networks.unet import UNet

FOLDER = Path(__file__).parents[1] / "golden" / "manifests"
FAMILIES = ("adm", "iddpm", "ldm_unet", "sd2_unet", "ddpm", "edm")
LISTS = {
    name: {n: tuple(s) for n, s in entry["keys"].items()}
    for family in FAMILIES
    for name, entry in json.loads(gzip.decompress((FOLDER / f"{family}.json.gz").read_bytes())).items()
}
PLAIN = {"attention": "plain", "context_width": None}
PIXELS = {**PLAIN, "in_channels": 3, "out_channels": 3}
DEEP = (1, 1, 2, 2, 4, 4)

ADM = {**PIXELS, "out_channels": 6, "head_width": 64, "scale_shift": True, "resblock_updown": True, "width": 256}
IMPROVED = {**PIXELS, "out_channels": 6, "heads": 4, "scale_shift": True, "width": 128, "blocks": 3}
CLASSIFIER = {"classes": 1000, "width": 128, "head_width": 64}
LATENT = {**PIXELS, "head_width": 32, "mult": (1, 2, 3, 4), "attention_levels": (1, 2, 3)}
SD2 = {"head_width": 64, "context_width": 1024, "projection": "linear"}
HO = {**PIXELS, "width": 128, "heads": 1, **SWITCHES}
FACES = {**LATENT, "width": 224}
SEMANTIC = {**PIXELS, "in_channels": 6, "width": 128, "mult": (1, 4, 8), "attention_levels": (), "heads": 8}

UNETS = {
    "adm/64x64_diffusion": {
        **ADM, "width": 192, "blocks": 3, "mult": (1, 2, 3, 4), "attention_levels": (1, 2, 3), "classes": 1000,
        "qkv_order": "new",
    },
    "adm/128x128_diffusion": {
        **ADM, "mult": (1, 1, 2, 3, 4), "attention_levels": (2, 3, 4), "classes": 1000, "heads": 4, "head_width": None,
    },
    "adm/256x256_diffusion": {**ADM, "mult": DEEP, "attention_levels": (3, 4, 5), "classes": 1000},
    "adm/256x256_diffusion_uncond": {**ADM, "mult": DEEP, "attention_levels": (3, 4, 5)},
    "adm/512x512_diffusion": {
        **ADM, "mult": (0.5, *DEEP), "stem_width": 128, "attention_levels": (4, 5, 6), "classes": 1000,
    },
    "adm/lsun_bedroom": {**ADM, "mult": DEEP, "attention_levels": (3, 4, 5)},
    "adm/64_256_upsampler": {
        **ADM, "in_channels": 6, "width": 192, "mult": DEEP, "attention_levels": (3, 4, 5), "classes": 1000, "heads": 4,
        "head_width": None,
    },
    "adm/128_512_upsampler": {
        **ADM, "in_channels": 6, "width": 192, "mult": DEEP, "attention_levels": (4, 5), "classes": 1000,
    },
    "iddpm/imagenet64_uncond_100M": {**IMPROVED, "mult": (1, 2, 3, 4), "attention_levels": (2, 3)},
    "iddpm/cifar10_uncond_50M": {**IMPROVED, "mult": (1, 2, 2, 2), "attention_levels": (1, 2), "dropout": 0.3},
    "iddpm/imagenet64_cond_270M": {
        **IMPROVED, "width": 192, "mult": (1, 2, 3, 4), "attention_levels": (2, 3), "classes": 1000,
    },
    "iddpm/upsample_cond_500K": {
        **IMPROVED, "in_channels": 6, "width": 192, "blocks": 2, "mult": DEEP, "attention_levels": (4, 5),
        "classes": 1000,
    },
    "iddpm/lsun_uncond_100M": {
        **IMPROVED, "blocks": 2, "mult": DEEP, "attention_levels": (4,), "heads": 1, "scale_shift": False,
    },
    "ldm_unet/celeba256": FACES,
    "ldm_unet/ffhq256": FACES,
    "ldm_unet/lsun_beds256": FACES,
    "ldm_unet/lsun_churches256": {
        **PLAIN, "width": 192, "mult": (1, 2, 2, 4, 4), "attention_levels": (0, 1, 2, 3), "heads": 8,
        "scale_shift": True, "resblock_updown": True,
    },
    "ldm_unet/cin256": {"width": 256, "mult": (1, 2, 4), "head_width": 32, "context_width": 512},
    "ldm_unet/cin256-v2": {
        "in_channels": 3, "out_channels": 3, "width": 192, "mult": (1, 2, 3, 5), "attention_levels": (1, 2, 3),
        "heads": 1, "context_width": 512,
    },
    "ldm_unet/txt2img-1p4B-eval": {"heads": 8, "context_width": 1280},
    "ldm_unet/text2img256": {
        "in_channels": 3, "out_channels": 3, "width": 192, "mult": (1, 2, 3, 5), "attention_levels": (1, 2, 3),
        "head_width": 32, "context_width": 640,
    },
    "ldm_unet/layout2img-openimages256": {
        "in_channels": 3, "out_channels": 3, "width": 128, "mult": (1, 2, 3, 4), "attention_levels": (1, 2, 3),
        "head_width": 32, "depth": 3, "context_width": 512,
    },
    "ldm_unet/bsr_sr": {**LATENT, "in_channels": 6, "width": 160, "mult": (1, 2, 2, 4), "attention_levels": (3,)},
    "ldm_unet/inpainting_big": {
        **LATENT, "in_channels": 7, "width": 256, "heads": 8, "head_width": None, "resblock_updown": True,
    },
    "ldm_unet/semantic_synthesis256": SEMANTIC,
    "ldm_unet/semantic_synthesis512": SEMANTIC,
    "ldm_unet/768x768": {
        "in_channels": 16, "out_channels": 16, "width": 448, "mult": (1, 2, 3, 4), "head_width": 32,
        "context_width": 768,
    },
    "ldm_unet/v1-inference": {"heads": 8},
    "sd2_unet/v2-inference": SD2,
    "sd2_unet/v2-inference-v": SD2,
    "sd2_unet/v2-inpainting-inference": {**SD2, "in_channels": 9},
    "sd2_unet/v2-midas-inference": {**SD2, "in_channels": 5},
    "sd2_unet/v2-1-stable-unclip-h-inference": {**SD2, "vector_width": 2048},
    "sd2_unet/v2-1-stable-unclip-l-inference": {**SD2, "vector_width": 1536},
    "sd2_unet/x4-upscaling": {
        "in_channels": 7, "width": 256, "mult": (1, 2, 2, 4), "attention_levels": (1, 2, 3), "heads": 8,
        "cross_only_levels": (1, 2), "context_width": 1024, "projection": "linear", "classes": 1000,
    },
    "ddpm/cifar10": {**HO, "mult": (1, 2, 2, 2), "attention_levels": (1,), "dropout": 0.1},
    "ddpm/lsun": {**HO, "mult": DEEP, "attention_levels": (4,)},
    "edm/imagenet-64x64-cond-adm": {
        **ADM, "out_channels": 3, "width": 192, "blocks": 3, "mult": (1, 2, 3, 4), "attention_levels": (1, 2, 3),
        "classes": 1000,
    },
}  # fmt: skip
CLASSIFIERS = {
    "adm/64x64_classifier": {**CLASSIFIER, "size": 64, "blocks": 4},
    "adm/128x128_classifier": {**CLASSIFIER, "size": 128, "mult": (1, 1, 2, 3, 4), "attention_levels": (2, 3, 4)},
    "adm/256x256_classifier": {**CLASSIFIER, "size": 256, "mult": DEEP, "attention_levels": (3, 4, 5)},
    "adm/512x512_classifier": {
        **CLASSIFIER, "size": 512, "mult": (0.5, *DEEP), "stem_width": 64, "attention_levels": (4, 5, 6),
    },
}  # fmt: skip

AUGMENTED = {"augment_width": 9}
RESIDUAL = {"embedding": "fourier", "noise_mult": 2, "encoder": "residual", "resample_filter": (1, 3, 3, 1)}
FACES_64 = {"resolution": 64, "mult": (1, 2, 2, 2), "attention_levels": (2,)}
SONGS = {
    "edm/cifar10-32x32-uncond-vp": AUGMENTED,
    "edm/cifar10-32x32-cond-vp": {**AUGMENTED, "classes": 10},
    "edm/cifar10-32x32-uncond-ve": {**AUGMENTED, **RESIDUAL},
    "edm/cifar10-32x32-cond-ve": {**AUGMENTED, **RESIDUAL, "classes": 10},
    "edm/ffhq-64x64-uncond-vp": {**AUGMENTED, **FACES_64},
    "edm/ffhq-64x64-uncond-ve": {**AUGMENTED, **FACES_64, **RESIDUAL},
}


def published(name):
    """Name -> shape of a file's tensors, in zoo's layout."""
    listed = LISTS[name]
    if name.startswith(("ddpm", "edm")):
        read = unet_tensors_from_ddpm if name.startswith("ddpm") else unet_tensors_from_edm
        return {
            n: tuple(t.shape) for n, t in read({n: torch.empty(s, device="meta") for n, s in listed.items()}).items()
        }
    return listed


def built(component, **arguments):
    with torch.device("meta"):
        return {n: tuple(t.shape) for n, t in component(**arguments).state_dict().items()}


def test_every_list_of_these_families_is_covered():
    assert {*UNETS, *CLASSIFIERS, *SONGS} == LISTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", UNETS)
def test_the_unet_is_the_published_one(name):
    assert built(UNet, **UNETS[name]) == published(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SONGS)
def test_score_sdes_unet_is_the_published_one(name):
    made = {f"model.{n}": s for n, s in built(SongUNet, **SONGS[name]).items()}
    assert list(made.items()) == list(LISTS[name].items())
    other = {**SONGS[name], "embedding": "positional" if "embedding" in SONGS[name] else "fourier"}
    assert {f"model.{n}" for n in built(SongUNet, **other)} != LISTS[name].keys()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_classifier_is_the_published_one(name):
    assert built(NoiseAwareClassifier, **CLASSIFIERS[name]) == published(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adm/512x512_diffusion", {"stem_width": None}),
        ("sd2_unet/x4-upscaling", {"cross_only_levels": ()}),
        ("sd2_unet/v2-1-stable-unclip-h-inference", {"vector_width": None}),
        ("iddpm/lsun_uncond_100M", {"scale_shift": True}),
        ("ldm_unet/bsr_sr", {"attention_levels": (2, 3)}),
        ("ddpm/cifar10", {"attention_levels": ()}),
    ],
)
def test_what_tensors_show_is_seen_when_it_is_wrong(name, change):
    assert built(UNet, **{**UNETS[name], **change}) != published(name)


def test_tensors_of_another_layout_are_refused():
    with refused("layout-wrong"):
        unet_tensors_from_ddpm({"time_embed.0.weight": torch.zeros(1)})
    tensors = {n: torch.empty(s, device="meta") for n, s in LISTS["ddpm/cifar10"].items()}
    with refused("layout-wrong", naming="'extra.conv'"):
        unet_tensors_from_ddpm({**tensors, "extra.conv.weight": torch.zeros(1)})
    with refused("layout-wrong", naming="'enc'"):
        unet_tensors_from_edm({"model.map_layer0.weight": torch.zeros(1)})
    with refused("layout-wrong", naming="'enc.8x8_block0.other.weight'"):
        unet_tensors_from_edm({"model.enc.8x8_block0.other.weight": torch.zeros(1)})
