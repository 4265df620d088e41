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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.schema.errors import ConfigError

SCHEDULE = {"name": "scaled-linear", "steps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
LEADING = {"name": "leading", "offset": 1}
NUMBER_WIDTH = 256  # of the embedding of each of SDXL's numbers
PREDICTIONS = ("eps", "v", "x0")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text encoder: where an original file and a diffusers folder have it, and how it is read."""

    prefix: str
    folder: str
    layout: str  # of its names: transformers or open-clip
    reading: Mapping[str, Any]  # ClipText's arguments that no shape shows

    @property
    def projected(self) -> bool:
        """Whether diffusers' class has the projection of its pooled state."""
        return self.folder == "text_encoder_2"


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image encoder: where an original file has it, and what no shape shows."""

    prefix: str
    reading: Mapping[str, Any]  # ClipImage's arguments


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A published line. `heads` are those of the U-Net; `sizes` are pixels a side by prediction."""

    key: str
    title: str
    heads: Mapping[str, int]
    scale: float  # of latents
    sizes: Mapping[str, int]
    prediction: str | None  # None: both were published, and tensors don't tell
    texts: Mapping[str, Text]
    sampler: Mapping[str, Any]
    scheduler: str  # diffusers' class of it
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

_LINES = (
    Variant(
        key="sd-1", title="Stable Diffusion 1", heads={"heads": 8}, scale=0.18215,
        sizes={"eps": 512, "v": 512, "x0": 512}, prediction="eps", guidance=7.5,
        sampler={"name": "plms", "steps": 50, **_FIRST_POINT}, scheduler="PNDMScheduler",
        texts={"text": Text(
            prefix="cond_stage_model.transformer.", folder="text_encoder", layout="transformers", reading=_OPENAI,
        )},
    ),
    Variant(
        key="sd-2",
        title="Stable Diffusion 2", heads={"head_width": 64}, scale=0.18215, sizes={"eps": 512, "v": 768, "x0": 512},
        prediction=None, guidance=7.5, sampler={"name": "ddim", "steps": 50, **_FIRST_POINT}, scheduler="DDIMScheduler",
        texts={"text": Text(
            prefix="cond_stage_model.model.", folder="text_encoder", layout="open-clip", reading=_OPEN,
        )},
    ),
    Variant(
        key="sdxl-base",
        title="Stable Diffusion XL, base", heads={"head_width": 64}, scale=0.13025,
        sizes={"eps": 1024, "v": 1024, "x0": 1024}, prediction="eps", guidance=5.0,
        sampler={"name": "euler", "steps": 50, "grid": LEADING}, scheduler="EulerDiscreteScheduler",
        texts={
            "clip-l": Text(
                prefix="conditioner.embedders.0.transformer.", folder="text_encoder", layout="transformers",
                reading={**_OPENAI, **_XL, "layer": 2},
            ),
            "clip-g": Text(
                prefix="conditioner.embedders.1.model.", folder="text_encoder_2", layout="open-clip",
                reading={**_BIG_G, **_XL},
            ),
        },
        vector=("clip-g", "sizes"),
    ),
    Variant(
        key="sdxl-refiner",
        title="Stable Diffusion XL, refiner", heads={"head_width": 64}, scale=0.13025,
        sizes={"eps": 1024, "v": 1024, "x0": 1024}, prediction="eps", guidance=5.0,
        sampler={"name": "euler", "steps": 50, "grid": LEADING}, scheduler="EulerDiscreteScheduler",
        texts={"clip-g": Text(
            prefix="conditioner.embedders.0.model.", folder="text_encoder_2", layout="open-clip", reading=_BIG_G,
        )},
        vector=("clip-g", "sizes"), numbers={"names": list(_AESTHETIC), "fixed": {"aesthetic_score": 6.0},
                 "nothing": {"aesthetic_score": 2.5}},
    ),
)  # fmt: skip
_SD1, _SD2, _XL_BASE, _ = _LINES
_UPSCALED = {**SCHEDULE, "beta_start": 0.0001, "beta_end": 0.02}
ENLARGES = 4  # times a side, of the x4 upscaler


def _inpainting(line: Variant) -> Variant:
    return replace(
        line, key=f"{line.key}-inpainting", title=f"{line.title}, inpainting", prediction=line.prediction or "eps",
        image_condition="masked",
    )  # fmt: skip


def _lcm(line: Variant) -> Variant:
    return replace(
        line, key=f"{line.key}-lcm", title=f"{line.title}, latent consistency", guidance=8.5, distilled=True,
        sampler={"name": "lcm", "steps": 4, "grid": {"name": "lcm"}}, scheduler="LCMScheduler",
    )  # fmt: skip


_FURTHER = (
    *map(_inpainting, (_SD1, _SD2, _XL_BASE)), *map(_lcm, (_SD1, _XL_BASE)),
    replace(
        _SD2, key="sd-2-depth", title="Stable Diffusion 2, depth", prediction="eps", guidance=9.0,
        image_condition="depth",
    ),
    replace(
        _SD2, key="sd-2-unclip", title="Stable Diffusion 2.1 unCLIP", prediction="v", guidance=10.0, vector=("image",),
        sampler={"name": "ddim", "steps": 20, **_FIRST_POINT},
        image=Image(
            prefix="embedder.model.visual.", reading={"activation": "gelu", "schedule": {"name": "cosine"}, "heads": 16}
        ),
    ),
    replace(
        _SD2, key="sd-2-x4", title="Stable Diffusion x4 upscaler", heads={"heads": 8}, scale=0.08333, prediction="v",
        sizes={"eps": 512, "v": 512, "x0": 512}, sampler={"name": "ddim", "steps": 75, **_FIRST_POINT}, guidance=9.0,
        schedule=_UPSCALED, level=0.021,  # noise_level 20 of 1000
        low_res={"name": "gaussian", "schedule": _UPSCALED, "tells": "label"},
    ),
)  # fmt: skip
VARIANTS: Mapping[str, Variant] = {variant.key: variant for variant in (*_LINES, *_FURTHER)}
_SHOWN = {1: "-depth", 3: "-x4", 5: "-inpainting"}  # further input channels, with latents of 4
_UNREAD = {1: "depth", 3: "a smaller image", 4: "an image to edit (InstructPix2Pix)"}


def variant_of(line: Variant, network: Mapping[str, Any], *, what: str) -> Variant:
    """The variant of a line by its U-Net's arguments; ConfigError for one that is shown what zoo doesn't make."""
    more = network["in_channels"] - network["out_channels"]
    key = line.key + _SHOWN.get(more, "" if more == 0 else f" with {more} more channels")
    if line.key == "sd-2" and more == 0 and "vector_width" in network:
        key = "sd-2-unclip"
    key += "-lcm" if "guidance_width" in network else ""
    if key not in VARIANTS or (key == "sd-2-x4") != ("classes" in network):
        shown = _UNREAD.get(more, f"{more} more channels than it draws, or has other inputs than a published one")
        raise ConfigError(
            f"'{what}' is a model of {line.title} that is shown {shown}, which zoo doesn't draw with yet; give another",
            code="model-switch-unfit",
        )
    return VARIANTS[key]


def told_by(names: Iterable[str]) -> Variant | None:
    """The variant of a single file, by its text encoders: the one that has most of them; None without any."""
    listed = list(names)

    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in listed)

    found = [v for v in _LINES if all(has(text.prefix) for text in v.texts.values())]
    return max(found, key=lambda variant: len(variant.texts), default=None)


def mixed_with(found: Variant, names: Iterable[str]) -> list[str]:
    """Titles of other lines whose text encoders a single file has beside those of its own line."""
    own, listed = {text.prefix for text in found.texts.values()}, list(names)
    others = {v.title: text.prefix for v in _LINES for text in v.texts.values() if text.prefix not in own}
    return [title for title, prefix in others.items() if any(name.startswith(prefix) for name in listed)]


def predicted(names: Iterable[str], metadata: Mapping[str, str]) -> str | None:
    """What a single file's network predicts, where the file says it: by ComfyUI's marks, or its metadata."""
    if any(name.endswith("v_pred") for name in names):
        return "v"
    said = {"epsilon": "eps", "v": "v", "v_prediction": "v", "sample": "x0"}
    return said.get(metadata.get("modelspec.prediction_type", ""))
