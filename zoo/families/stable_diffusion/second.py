"""A second model behind a base: SDXL's refiner over the last part of t, or the x4 upscaler over the finished image.

The refiner takes the base's latents where it stops (Podell et al. 2023, section 2.5). The upscaler is conditioned on
the base's image, noised to a level, and works behind any base.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.sources import open_source
from zoo.families.stable_diffusion.variants import ENLARGES
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.ranges import within

SWITCH = 0.2  # the t at which the refiner takes over: diffusers' denoising_end of 0.8
# The answer that names a second model -> its variant, and what it is called.
SECONDS = {"refiner": ("sdxl-refiner", "refiner of SDXL"), "upscaler": ("sd-2-x4", "x4 upscaler")}


def followed(name: str, base: Mapping[str, Any], path: Path, answers: Mapping[str, str]) -> dict[str, Any]:
    """The base's pipeline with the model at `path` behind it; a refiner runs from t = `switch` on.

    A `clip_skip` is of each text encoder, this model's too.

    Raises ConfigError for a file that is no such model, and UsageError for a switch outside (0, 1).
    """
    key, title = SECONDS[name]
    source = open_source(path)
    if getattr(source, "key", None) != key:
        raise ConfigError(
            f"'{path}' is no {title}; give the file or folder of one, or leave {name} out", code="model-variant-wrong"
        )
    *before, first = base["stages"]
    size = first["size"] if name == "refiner" else ENLARGES * first["size"]
    second = source.config({"size": str(size), **{key: answers[key] for key in ("clip_skip",) if key in answers}})
    last = dict(second["stages"][0])
    last["listens"] = {field: _renamed(names, f"{name}-") for field, names in last["listens"].items()}
    if name == "refiner":
        at = _read_switch(answers.get("switch"))
        ends = {"feeds": "latent", "interval": [1.0, at]}
        starts = {"takes": "latent", "interval": [at, 0.0]}
    else:
        ends, starts = {"feeds": "low_res"}, {}
    return {
        **base,
        "conditioners": {
            **base["conditioners"], **{f"{name}-{n}": block for n, block in second["conditioners"].items()}
        },
        "stages": [*before, {**first, **ends}, {**last, "name": name, "size": size, **starts}],
    }  # fmt: skip


def _read_switch(switch: str | None) -> float:
    try:
        at = SWITCH if switch is None else float(switch)
    except ValueError as error:
        raise UsageError(f"switch is {switch!r}; give a number between 0 and 1", code="number-out-of-range") from error
    within(0.0, 1.0, {"switch": at}, "()")  # the t at which the refiner takes over
    return at


def _renamed(names: Any, prefix: str) -> Any:
    if isinstance(names, Mapping):
        return {**names, "of": [prefix + name for name in names["of"]]}
    return prefix + names if isinstance(names, str) else [prefix + name for name in names]
