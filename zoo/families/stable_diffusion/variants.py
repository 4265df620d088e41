"""What each variant is beyond its tensors: heads, latent scale, sizes, text encoders, published sampler and guidance.

Sources: the configurations of CompVis/stable-diffusion, Stability-AI/stablediffusion and generative-models, and the
scheduler configurations of the folders that were published with them. None of it can be read off a weight file.

| variant | told by | prediction |
|---|---|---|
| `sd-1` | a CLIP of OpenAI's under `cond_stage_model.transformer.` | eps, unless said otherwise |
| `sd-2` | an open_clip tower under `cond_stage_model.model.` | eps (base, 512) or v (768): has to be said |
| `sdxl-base` | two text encoders under `conditioner.embedders.` | eps, unless said otherwise |
| `sdxl-refiner` | one open_clip tower under `conditioner.embedders.0.` | eps, unless said otherwise |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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


_OPENAI = {"activation": "quick-gelu", "pad": "end"}
_OPEN = {"activation": "gelu", "pad": "zero", "layer": 2}
_XL = {"nothing": "zeros", "final_norm": False}
_BIG_G = {**_OPEN, "final_norm": False}
_AESTHETIC = ("original_height", "original_width", "crop_top", "crop_left", "aesthetic_score")
_FIRST_POINT = {"grid": LEADING, "final": "first"}

VARIANTS: Mapping[str, Variant] = {
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
