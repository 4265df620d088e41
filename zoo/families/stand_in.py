"""A published model's file without its numbers: the header that it has, before a hole that takes no place on the disk.

What a header tells (the plan of a model that isn't there yet) is told by this one too. Lists are `key_lists`'.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from zoo.families.key_lists import key_lists
from zoo.schema.errors import WeightsError

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_XL = "conditioner.embedders."
_OPENAI, _BIG_G = "clip-vit-l-14/text", "openclip-bigG/text"
# variant -> prefix -> list
_LISTS = {
    "sd-1": {_UNET: "ldm_unet/v1-inference", "cond_stage_model.transformer.text_model.": _OPENAI},
    "sd-2": {_UNET: "sd2_unet/v2-inference", "cond_stage_model.model.": "openclip-h/text"},
    "sdxl-base": {
        _UNET: "sdxl_unet/sd_xl_base", f"{_XL}0.transformer.text_model.": _OPENAI, f"{_XL}1.model.": _BIG_G,
    },
    "sd-1-inpainting": {_UNET: "sd/v1-inpainting-unet", "cond_stage_model.transformer.text_model.": _OPENAI},
    "sd-2-inpainting": {_UNET: "sd2_unet/v2-inpainting-inference", "cond_stage_model.model.": "openclip-h/text"},
    "sdxl-base-inpainting": {
        _UNET: "sdxl_unet/sd_xl_inpainting", f"{_XL}0.transformer.text_model.": _OPENAI, f"{_XL}1.model.": _BIG_G,
    },
    "sdxl-refiner": {_UNET: "sdxl_unet/sd_xl_refiner", f"{_XL}0.model.": _BIG_G},
}  # fmt: skip


def write_stand_in(variant: str, path: Path) -> Path:
    """Write the stand-in of a published variant's safetensors file, in float16; returns `path`.

    Raises WeightsError for a variant whose files zoo has no lists of.
    """
    if variant not in _LISTS:
        raise WeightsError(
            f"zoo knows no list of tensors for all of '{variant}'; say weights='PATH', its file", code="weights-missing"
        )
    header, end = {}, 0
    for prefix, name in {**_LISTS[variant], _VAE: "ldm_ae/kl-f8"}.items():
        for tensor, shape in key_lists()[name].items():
            start, end = end, end + 2 * math.prod(shape)
            header[prefix + tensor] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path
