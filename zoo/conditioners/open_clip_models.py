"""Text towers as open_clip's own model configs describe them, read without importing open_clip (or torch)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zoo.schema.errors import ConfigError, WeightsError
from zoo.schema.signature import find_source
from zoo.schema.unknown import unknown

# What zoo.conditioners.clip_text.ClipText is made of; a tower with other settings is another kind of transformer.
PLAIN = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}


@cache
def _folder() -> Path:
    try:
        package = find_source("open_clip")
    except ConfigError as error:
        raise ConfigError(
            "conditioner 'open-clip' needs the package open_clip_torch; install it", code="package-missing"
        ) from error
    assert package is not None  # a package with a file
    return package.parent / "model_configs"


def text_tower(model: str) -> dict[str, Any]:
    """`ClipText`'s arguments for a model of open_clip: widths, layers, activation.

    Raises ConfigError for a name that open_clip doesn't know, and for a tower that isn't a plain CLIP's.
    """
    names = sorted(path.stem for path in _folder().glob("*.json"))
    if model not in names:
        raise ConfigError(unknown("model of open_clip", model, names), code="backbone-unknown")
    config = json.loads((_folder() / f"{model}.json").read_text(encoding="utf-8"))
    said = config["text_cfg"]
    other = sorted(key for key in said if key not in PLAIN)
    other += ["another vocabulary"] if said.get("vocab_size", PLAIN["vocab_size"]) != PLAIN["vocab_size"] else []
    if other:
        raise ConfigError(
            f"the text tower of open_clip's '{model}' is no plain CLIP's (it has {', '.join(other)}); name a model "
            "like ViT-H-14, ViT-bigG-14 or ViT-L-14-quickgelu",
            code="backbone-unfit",
        )
    tower = {**PLAIN, **said}
    del tower["vocab_size"]
    return {
        **tower,
        "embed_dim": config["embed_dim"],
        "activation": "quick-gelu" if config.get("quick_gelu") else "gelu",
    }


def facts(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a config can be checked against: the tower's widths, and whether its file is there."""
    tower = text_tower(arguments["model"])
    layer, file = arguments["layer"], arguments["file"]
    if isinstance(layer, int) and not 1 <= layer <= tower["layers"]:
        raise ConfigError(
            f"conditioner 'open-clip': layer is {layer}; give 1 (the last) to {tower['layers']}",
            code="number-out-of-range",
        )
    if file is not None and not Path(file).expanduser().is_file():
        raise WeightsError(
            f"conditioner 'open-clip': the weight file '{file}' is missing; give the path of one",
            code="weights-missing",
        )
    return {"width": tower["width"], "embed_dim": tower["embed_dim"]}
