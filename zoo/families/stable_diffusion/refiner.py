"""SDXL's refiner behind a base: a second stage over the last part of t (Podell et al. 2023, section 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.sources import open_source
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.ranges import within

SWITCH = 0.2  # the t at which the refiner takes over: diffusers' denoising_end of 0.8
PREFIX = "refiner-"  # of its conditioners' names


def refined(base: Mapping[str, Any], path: Path, switch: str | None) -> dict[str, Any]:
    """The base's pipeline with the refiner at `path` behind it, from t = `switch` on.

    Raises ConfigError for a file that is no refiner, and UsageError for a switch outside (0, 1).
    """
    source = open_source(path)
    if getattr(source, "key", None) != "sdxl-refiner":
        raise ConfigError(
            f"'{path}' is no refiner of SDXL; give the file or folder of one, or leave refiner out",
            code="model-variant-wrong",
        )
    try:
        at = SWITCH if switch is None else float(switch)
    except ValueError as error:
        raise UsageError(f"switch is {switch!r}; give a number between 0 and 1", code="number-out-of-range") from error
    within(0.0, 1.0, {"switch": at}, "()")  # the t at which the refiner takes over
    second = source.config({})
    first, last = dict(base["stages"][0]), dict(second["stages"][0])
    last["listens"] = {field: _renamed(names) for field, names in last["listens"].items()}
    return {
        **base,
        "conditioners": {
            **base["conditioners"], **{PREFIX + name: block for name, block in second["conditioners"].items()}
        },
        "stages": [
            {**first, "feeds": "latent", "interval": [1.0, at]},
            {**last, "name": "refiner", "takes": "latent", "size": first["size"], "interval": [at, 0.0]},
        ],
    }  # fmt: skip


def _renamed(names: Any) -> Any:
    if isinstance(names, Mapping):
        return {**names, "of": [PREFIX + name for name in names["of"]]}
    return PREFIX + names if isinstance(names, str) else [PREFIX + name for name in names]
