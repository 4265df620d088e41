"""A published model's file without its numbers: the header that it has, before a hole that takes no place on the disk.

What a header tells (the plan of a model that isn't there yet) is told by this one too. Lists are `key_lists`'. A model
that was published as a diffusers folder alone has a folder.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

from zoo.config.sources import SUFFIXES
from zoo.families.key_lists import Shapes, key_lists
from zoo.families.stable_diffusion.folder_configs import (
    model_index,
    scheduler_config,
    text_config,
    unet_config,
    vae_config,
)
from zoo.families.stable_diffusion.variants import VARIANTS
from zoo.schema.advice import option
from zoo.schema.errors import WeightsError

_UNET, _VAE, _IMAGE = "model.diffusion_model.", "first_stage_model.", "embedder.model.visual."
_XL = "conditioner.embedders."
_BIG_G, _KL = "openclip-bigG/text", {_VAE: "ldm_ae/kl-f8"}
_SD1 = {"cond_stage_model.transformer.text_model.": "clip-vit-l-14/text", **_KL}
_SD2 = {"cond_stage_model.model.": "openclip-h/text", **_KL}
_SDXL = {f"{_XL}0.transformer.text_model.": "clip-vit-l-14/text", f"{_XL}1.model.": _BIG_G, **_KL}
# variant -> prefix -> list
_LISTS = {
    "sd-1": {_UNET: "ldm_unet/v1-inference", **_SD1},
    "sd-1-inpainting": {_UNET: "sd/v1-inpainting-unet", **_SD1},
    "sd-2": {_UNET: "sd2_unet/v2-inference", **_SD2},
    "sd-2-inpainting": {_UNET: "sd2_unet/v2-inpainting-inference", **_SD2},
    "sd-2-depth": {_UNET: "sd2_unet/v2-midas-inference", **_SD2},
    "sd-2-unclip": {_UNET: "sd2_unet/v2-1-stable-unclip-h-inference", _IMAGE: "openclip-h/vision", **_SD2},
    "sd-2-x4": {_UNET: "sd2_unet/x4-upscaling", **_SD2, _VAE: "sd2_ae/x4-upscaler"},
    "sdxl-base": {_UNET: "sdxl_unet/sd_xl_base", **_SDXL},
    "sdxl-base-inpainting": {_UNET: "sdxl_unet/sd_xl_inpainting", **_SDXL},
    "sdxl-refiner": {_UNET: "sdxl_unet/sd_xl_refiner", f"{_XL}0.model.": _BIG_G, **_KL},
}  # fmt: skip
_LCM, _GUIDANCE = "sd-1-lcm", {"time_embedding.cond_proj.weight": (320, 256)}


def write_stand_in(variant: str, path: Path) -> Path:
    """Write the stand-in of a published variant, a safetensors file or a folder, in float16; returns `path`.

    Raises WeightsError for a variant whose files zoo has no lists of.
    """
    if variant == _LCM:
        return _write_folder(path)
    if variant not in _LISTS:
        raise WeightsError(
            f"zoo knows no list of tensors for all of '{variant}'; say {option('weights', 'PATH')}, its file",
            code="weights-missing",
        )
    lists = _LISTS[variant].items()
    if path.suffix not in SUFFIXES:  # a folder's name
        path = path.with_name(f"{path.name}.safetensors")
    return _write(path, {prefix + tensor: s for prefix, name in lists for tensor, s in key_lists()[name].items()})


def _write(path: Path, shapes: Shapes) -> Path:
    header, end = {}, 0
    for tensor, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[tensor] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def _write_folder(path: Path) -> Path:
    """A latent consistency model of Stable Diffusion 1, as a diffusers folder."""
    lists, variant = key_lists(), VARIANTS[_LCM]
    unet, vae, text = lists["sd15/unet"] | _GUIDANCE, lists["sd/vae-kl-f8"], lists["clip-vit-l-14/text"]
    parts: Mapping[str, tuple[str, Shapes, dict]] = {
        "unet": (
            "diffusion_pytorch_model", unet,
            unet_config(unet, heads=variant.heads["heads"], sample_size=variant.sizes["eps"] // 8)
            | {"time_cond_proj_dim": _GUIDANCE["time_embedding.cond_proj.weight"][1]},
        ),
        "vae": ("diffusion_pytorch_model", vae, vae_config(vae, scale=variant.scale, sample_size=512)),
        "text_encoder": ("model", text, text_config(text, open_clip=False, projected=False)),
    }  # fmt: skip
    for part, (stem, shapes, config) in parts.items():
        (path / part).mkdir(parents=True)
        (path / part / "config.json").write_text(json.dumps(config))
        _write(path / part / f"{stem}.safetensors", shapes)
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler_config(variant, "eps")))
    (path / "model_index.json").write_text(json.dumps(model_index(variant, "LatentConsistencyModelPipeline")))
    return path
