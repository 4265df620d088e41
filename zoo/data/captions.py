"""Reworded captions, made of a row's name and keywords, so that networks learn synonyms.

A row's `text` is "NAME, STYLE"; training sometimes uses the keywords instead of the name, the style first, an
article, or no style at all. Rows without `name` and `keywords` keep their text. A row with a column `captions`, a list
of other captions of the same image, uses those instead: data that comes with several, or `wordings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.schema.errors import UsageError

SYNONYM = 3  # a keyword of at most this many concepts is as good as the name
Row = Mapping[str, Any]


def refuse_empty(rows: Sequence[Row]) -> None:
    """UsageError that names the rows without a caption: as training reads it, an empty one is no caption at all."""
    empty = [
        row.get("file_name", f"row {i}")
        for i, row in enumerate(rows)
        if not all(said.strip() for said in (row["text"], *(row.get("captions") or [])))
    ]
    if empty:
        raise UsageError(
            f"{len(empty)} of {len(rows)} rows have an empty caption: {named(empty)}; write one, or take the rows out",
            code="caption-missing",
        )


def named(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more


def style_of(row: Row) -> str:
    """The part of the caption after the name: "red apple, 3d style" -> "3d style"."""
    name, text = row.get("name") or "", row["text"]
    return text[len(name) :].lstrip(", ") if name and text.startswith(name) else ""


def all_texts(rows: Sequence[Row]) -> list[str]:
    """Texts that hold every word any caption of the rows may have."""
    texts = ["a an the in"]
    for row in rows:
        texts += [row["text"].replace(",", " , "), *(row.get("keywords") or [])]
        texts += [said.replace(",", " , ") for said in row.get("captions") or []]
    return texts


def caption(row: Row, draw: np.random.Generator, *, keep: float = 0.5) -> str:
    """A caption of the row; with probability `keep` its own text."""
    name, keywords, style = row.get("name"), row.get("keywords") or [], style_of(row)
    choice = draw.random()
    if row.get("captions"):
        others = row["captions"]
        return row["text"] if choice < keep else others[int(draw.integers(len(others)))]
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
        return f"{_article(name, the=draw.random() < 0.3)} {name}, {style}"
    return name


def _article(name: str, *, the: bool = False) -> str:
    return "the" if the else "an" if name[0].lower() in "aeiou" else "a"


def concepts_of_keywords(rows: Sequence[Row]) -> dict[str, int]:
    """How many concepts each keyword belongs to; a row's concept is its `concept`, or else its name.

    A keyword that is the name of a row is counted as if all rows had it: "sunset", given to a sunrise, is no synonym.
    """
    names = {(row.get("name") or "").lower() for row in rows}
    concepts: dict[str, set[str]] = {}
    for row in rows:
        for keyword in row.get("keywords") or []:
            concepts.setdefault(keyword, set()).add(row.get("concept") or row.get("name") or row["text"])
    return {keyword: len(rows) if keyword.lower() in names else len(found) for keyword, found in concepts.items()}


def wordings(row: Row, concepts: Mapping[str, int], *, allowed: Callable[[str], bool] = lambda _: True) -> list[str]:
    """Other captions of a row: synonyms first, then the name beside a keyword, then the name reworded.

    A keyword that few concepts have (`concepts`) replaces the name: "car" for "automobile". One that many
    have is too general alone and follows the name: "red apple fruit". A row's `also` (a colour,
    "mirrored") is in every caption. Only captions that are `allowed` come back; none for a row without name or style.
    """
    name, style, also = row.get("name"), style_of(row), row.get("also") or ""
    if not name or not style:
        return []
    said = set(name.lower().split())
    keywords = [k for k in row.get("keywords") or [] if k.lower() not in said]
    synonyms = [k for k in keywords if concepts.get(k, 0) <= SYNONYM]
    common = [k for k in keywords if concepts.get(k, 0) > SYNONYM]
    first = f"{also} " if also else ""
    made = [f"{first}{synonym}, {style}" for synonym in synonyms]
    made += [f"{name} {keyword}, {style}" for keyword in common[:3]]
    if len(keywords) > 1:
        made.append(f"{first}{' '.join(keywords[:3])}, {style}")
    made += [f"{_article(name)} {name}, {style}", f"{name} in {style}", f"{style}, {name}", name]
    return [caption for caption in dict.fromkeys(made) if allowed(caption)]
