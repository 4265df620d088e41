"""What each variant is beyond its tensors: heads, latent scale, sizes, text encoders, published sampler and guidance.

Sources: the configurations of CompVis/stable-diffusion, Stability-AI/stablediffusion and generative-models, and the
scheduler configurations of the folders that were published with them. None of it can be read off a weight file.

| variant | told by | prediction |
|---|---|---|
| `sd-1` | a CLIP of OpenAI's under `cond_stage_model.transformer.` | eps, unless said otherwise |
| `sd-2` | an open_clip tower under `cond_stage_model.model.` | eps (base, 512) or v (768): has to be said |
| `sdxl-base` | two text encoders under `conditioner.embedders.` | eps, unless said otherwise |
| `sdxl-refiner` | one open_clip tower under `conditioner.embedders.0.` | eps, unless said otherwise |
| `sd-1-inpainting`, `sd-2-inpainting`, `sdxl-base-inpainting` | 9 input channels | eps |
| `sd-2-depth` | 5 input channels | eps |
| `sd-2-x4` | 7 input channels, a table of 1000 levels of noise | v |
| `sd-2-unclip` | a vector beside the tokens, of an image's embedding | v |
| `sd-1-lcm`, `sdxl-base-lcm` | a layer for the guidance scale: a latent consistency model | eps |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.schema.errors import ConfigError

SCHEDULE = {"name": "scaled-linear", "steps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
LEADING = {"name": "leading", "offset": 1}
NUMBER_WIDTH = 256  # of the embedding of each of SDXL's numbers
PREDICTIONS = ("eps", "v", "x0")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text encoder: where an original file has it, and how it is read."""

    prefix: str
    layout: str  # of its names: transformers or open-clip
    reading: Mapping[str, Any]  # ClipText's arguments that no shape shows


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image encoder: where an original file has it, and what no shape shows."""

    prefix: str
    reading: Mapping[str, Any]  # ClipImage's arguments


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A published line. `heads` are those of the U-Net; `sizes` are pixels a side by prediction."""

    title: str
    heads: Mapping[str, int]
    scale: float  # of latents
    sizes: Mapping[str, int]
    prediction: str | None  # None: both were published, and tensors don't tell
    texts: Mapping[str, Text]
    sampler: Mapping[str, Any]
    guidance: float
    vector: tuple[str, ...] = ()  # what the U-Net's vector joins: a conditioner's pooled state, and numbers
    numbers: Mapping[str, Any] = field(default_factory=dict)  # arguments of the conditioner `sizes`
    schedule: Mapping[str, Any] = field(default_factory=lambda: SCHEDULE)
    image_condition: str | None = None  # what the U-Net is shown beside x_t
    low_res: Mapping[str, Any] | None = None  # how it is shown a smaller image
    level: float | None = None  # to which the smaller image is noised
    image: Image | None = None  # the tower that reads a call's image
    distilled: bool = False  # the U-Net takes its guidance scale as an input


_OPENAI = {"activation": "quick-gelu", "pad": "end"}
_OPEN = {"activation": "gelu", "pad": "zero", "layer": 2}
_XL = {"nothing": "zeros", "final_norm": False}
_BIG_G = {**_OPEN, "final_norm": False}
_AESTHETIC = ("original_height", "original_width", "crop_top", "crop_left", "aesthetic_score")
_FIRST_POINT = {"grid": LEADING, "final": "first"}

_LINES: Mapping[str, Variant] = {
    "sd-1": Variant(
        title="Stable Diffusion 1", heads={"heads": 8}, scale=0.18215, sizes={"eps": 512, "v": 512, "x0": 512},
        prediction="eps", guidance=7.5, sampler={"name": "plms", "steps": 50, **_FIRST_POINT},
        texts={"text": Text(prefix="cond_stage_model.transformer.", layout="transformers", reading=_OPENAI)},
    ),
    "sd-2": Variant(
        title="Stable Diffusion 2", heads={"head_width": 64}, scale=0.18215, sizes={"eps": 512, "v": 768, "x0": 512},
        prediction=None, guidance=7.5, sampler={"name": "ddim", "steps": 50, **_FIRST_POINT},
        texts={"text": Text(prefix="cond_stage_model.model.", layout="open-clip", reading=_OPEN)},
    ),
    "sdxl-base": Variant(
        title="Stable Diffusion XL, base", heads={"head_width": 64}, scale=0.13025,
        sizes={"eps": 1024, "v": 1024, "x0": 1024}, prediction="eps", guidance=5.0,
        sampler={"name": "euler", "steps": 50, "grid": LEADING},
        texts={
            "clip-l": Text(
                prefix="conditioner.embedders.0.transformer.", layout="transformers",
                reading={**_OPENAI, **_XL, "layer": 2},
            ),
            "clip-g": Text(prefix="conditioner.embedders.1.model.", layout="open-clip", reading={**_BIG_G, **_XL}),
        },
        vector=("clip-g", "sizes"),
    ),
    "sdxl-refiner": Variant(
        title="Stable Diffusion XL, refiner", heads={"head_width": 64}, scale=0.13025,
        sizes={"eps": 1024, "v": 1024, "x0": 1024}, prediction="eps", guidance=5.0,
        sampler={"name": "euler", "steps": 50, "grid": LEADING},
        texts={"clip-g": Text(prefix="conditioner.embedders.0.model.", layout="open-clip", reading=_BIG_G)},
        vector=("clip-g", "sizes"), numbers={"names": list(_AESTHETIC), "fixed": {"aesthetic_score": 6.0},
                 "nothing": {"aesthetic_score": 2.5}},
    ),
}  # fmt: skip
_SD1, _SD2, _XL_BASE = _LINES["sd-1"], _LINES["sd-2"], _LINES["sdxl-base"]
_UPSCALED = {**SCHEDULE, "beta_start": 0.0001, "beta_end": 0.02}
ENLARGES = 4  # times a side, of the x4 upscaler


def _inpainting(line: Variant) -> Variant:
    prediction = line.prediction or "eps"
    return replace(line, title=f"{line.title}, inpainting", prediction=prediction, image_condition="masked")


def _lcm(line: Variant) -> Variant:
    sampler = {"name": "lcm", "steps": 4, "grid": {"name": "lcm"}}
    return replace(line, title=f"{line.title}, latent consistency", sampler=sampler, guidance=8.5, distilled=True)


VARIANTS: Mapping[str, Variant] = {
    **_LINES, "sd-1-lcm": _lcm(_SD1), "sdxl-base-lcm": _lcm(_XL_BASE),
    "sd-1-inpainting": _inpainting(_SD1), "sd-2-inpainting": _inpainting(_SD2),
    "sdxl-base-inpainting": _inpainting(_XL_BASE),
    "sd-2-depth": replace(
        _SD2, title="Stable Diffusion 2, depth", prediction="eps", guidance=9.0, image_condition="depth"
    ),
    "sd-2-unclip": replace(
        _SD2, title="Stable Diffusion 2.1 unCLIP", prediction="v", guidance=10.0, vector=("image",),
        sampler={"name": "ddim", "steps": 20, **_FIRST_POINT},
        image=Image(
            prefix="embedder.model.visual.", reading={"activation": "gelu", "schedule": {"name": "cosine"}, "heads": 16}
        ),
    ),
    "sd-2-x4": replace(
        _SD2, title="Stable Diffusion x4 upscaler", heads={"heads": 8}, scale=0.08333, prediction="v", guidance=9.0,
        sizes={"eps": 512, "v": 512, "x0": 512}, sampler={"name": "ddim", "steps": 75, **_FIRST_POINT},
        schedule=_UPSCALED, level=0.021,  # noise_level 20 of 1000
        low_res={"name": "gaussian", "schedule": _UPSCALED, "tells": "label"},
    ),
}  # fmt: skip
_SHOWN = {1: "-depth", 3: "-x4", 5: "-inpainting"}  # further input channels, with latents of 4
_UNREAD = {1: "depth", 3: "a smaller image", 4: "an image to edit (InstructPix2Pix)"}


def key_of(line: str, network: Mapping[str, Any], *, what: str) -> str:
    """The variant of a line by its U-Net's arguments; ConfigError for one that is shown what zoo doesn't make."""
    more = network["in_channels"] - network["out_channels"]
    key = line + _SHOWN.get(more, "" if more == 0 else f" with {more} more channels")
    if line == "sd-2" and more == 0 and "vector_width" in network:
        key = "sd-2-unclip"
    key += "-lcm" if "guidance_width" in network else ""
    if key not in VARIANTS or (key == "sd-2-x4") != ("classes" in network):
        shown = _UNREAD.get(more, f"{more} more channels than it draws, or has other inputs than a published one")
        raise ConfigError(
            f"'{what}' is a model of {VARIANTS[line].title} that is shown {shown}, which zoo doesn't draw with yet; "
            "give another",
            code="model-switch-unfit",
        )
    return key
