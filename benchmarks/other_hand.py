"""Drawings by another hand: Streamline Emojis (CC-BY-4.0, Streamline), whose style no training image shows.

They measure judges, and nothing is trained on them. The set's icons are mapped to the data's concepts by
their names:

1. A number at the end of an icon's name marks a variant and is dropped: `pizza-2` is "pizza".
2. The rest, in lower case with every run of other characters one blank, is looked for among the names and concepts of
   the data written the same way; where it isn't there and ends in "face", it is looked for without ("fox face").
3. A name that belongs to several concepts is none's. `NOT_THE_SAME` are icons whose name now means another emoji.
4. Of several icons of one concept the first by name is taken: one drawing a concept.

The drawings are made as the data's are (recipes/emoji/prepare.py), which needs resvg-py:

    pip install resvg-py==0.5.0
    npm pack --ignore-scripts @iconify-json/streamline-emojis@1.2.4
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.colour_requests import normalised

PACKAGE, VERSION = "@iconify-json/streamline-emojis", "1.2.4"
LICENCE = "CC-BY-4.0, Streamline"
# "Dizzy face" is now "face with crossed-out eyes" and "pouting face" "enraged face"; "dizzy" and "pouting" are others.
NOT_THE_SAME = ("dizzy-face", "pouting-face")
PREPARE = Path(__file__).resolve().parent.parent / "recipes" / "emoji" / "prepare.py"


@cache
def prepare() -> ModuleType:
    """The recipe's own drawing."""
    spec = importlib.util.spec_from_file_location("emoji_prepare", PREPARE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def concepts_of_icons(icons: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Concept -> the icon that shows it, by the rule above."""
    meant: dict[str, set[str]] = {}
    for row in rows:
        for said in (row["name"], row["concept"]):
            meant.setdefault(normalised(said.replace("’", "").replace("'", "")), set()).add(row["concept"])
    found: dict[str, str] = {}
    for icon in sorted(icons):
        said = normalised(re.sub(r"-\d+$", "", icon))
        concepts = meant.get(said) or meant.get(said.removesuffix(" face"), set())
        if len(concepts) == 1 and icon not in NOT_THE_SAME:
            found.setdefault(next(iter(concepts)), icon)
    return dict(sorted(found.items()))


def drawings(packages: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, list[str]]:
    """uint8 (N, 3, 128, 128) on white, and the concept of each; the tarball is fetched by npm if it isn't there."""
    try:
        import resvg_py  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SystemExit("error: drawing needs resvg-py: pip install resvg-py==0.5.0") from None
    icons = prepare().Svgs(prepare().fetched(PACKAGE, VERSION, packages))
    concepts = concepts_of_icons(icons.names(), rows)
    images = [np.asarray(prepare().on_white(icons.draw(icon))).transpose(2, 0, 1) for icon in concepts.values()]
    return torch.from_numpy(np.stack(images)), list(concepts)
