"""Captions said in other words: from a row's name and keywords, so that weights learn what words mean.

A row's `text` is "NAME, STYLE"; training sometimes hears the keywords instead of the name, the style first, an
article, or no style at all. Rows without `name` and `keywords` keep their text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def style_of(row: Mapping[str, Any]) -> str:
    """What the caption says after the name: "red apple, 3d style" -> "3d style"."""
    name, text = row.get("name") or "", row["text"]
    return text[len(name) :].lstrip(", ") if name and text.startswith(name) else ""


def all_texts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Texts that hold every word any caption of the rows may have."""
    texts = ["a an the in"]
    for row in rows:
        texts += [row["text"].replace(",", " , "), *(row.get("keywords") or [])]
    return texts


def caption(row: Mapping[str, Any], draw: np.random.Generator, *, keep: float = 0.5) -> str:
    """A caption of the row; with probability `keep` its own text."""
    name, keywords, style = row.get("name"), row.get("keywords") or [], style_of(row)
    choice = draw.random()
    if not name or not style or choice < keep:
        return row["text"]
    rest = (choice - keep) / (1.0 - keep)
    if rest < 0.4 and keywords:
        count = min(len(keywords), int(draw.integers(1, 4)))
        said = " ".join(keywords[i] for i in draw.permutation(len(keywords))[:count])
        return f"{said}, {style}"
    if rest < 0.6:
        return f"{style}, {name}" if draw.random() < 0.5 else f"{name} in {style}"
    if rest < 0.8:
        article = "the" if draw.random() < 0.3 else "an" if name[0].lower() in "aeiou" else "a"
        return f"{article} {name}, {style}"
    return name
