"""Tensor names and shapes of published models, so that a file's own can be held against them.

`key_lists.xz` has them all in a few kilobytes: names without their numbers, the sets of numbers that occur, and each
list's shapes by the sizes that it uses. `python -m benchmarks.key_lists MANIFESTS` makes it from lists that were
counted on the original classes. What a list is called in the world is in `published_models`.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

from zoo.schema.errors import UsageError
from zoo.schema.unknown import unknown

FILE = Path(__file__).with_name("key_lists.xz")
_NUMBER = re.compile(r"\d+")
_SECTION, _LIST, _ROW, _RUN = "\0", "\n", ";", ","

Shapes = Mapping[str, tuple[int, ...]]


def template(name: str) -> str:
    """A tensor's name with `#` in place of its numbers: `down.#.block.#.conv1.weight`."""
    return _NUMBER.sub("#", name)


def encode(lists: Mapping[str, Shapes]) -> bytes:
    """The file's bytes; lists that are equal are stored once."""
    templates: dict[str, int] = {}
    sets: dict[str, int] = {}
    whole: dict[tuple[tuple[str, tuple[int, ...]], ...], str] = {}
    names, sizes, used, numbered, shapes = [], [], [], [], []
    for name, tensors in lists.items():
        same = whole.setdefault(tuple(sorted(tensors.items())), name)
        if same != name:
            names.append(f"{name}={same}")
            continue
        names.append(name)
        rows: dict[str, list[tuple[list[int], tuple[int, ...]]]] = {}
        for tensor, shape in tensors.items():
            rows.setdefault(template(tensor), []).append(([int(n) for n in _NUMBER.findall(tensor)], shape))
        own: dict[int, int] = {}
        for row in rows.values():
            row.sort()
        ordered = sorted(rows)
        used.append(" ".join(str(templates.setdefault(t, len(templates))) for t in ordered))
        numbers = (" ".join(".".join(map(str, n)) for n, _ in rows[t]) for t in ordered)
        numbered.append(" ".join(str(sets.setdefault(n, len(sets))) for n in numbers))
        shapes.append(_ROW.join(_runs([s for _, s in rows[t]], own) for t in ordered))
        sizes.append(" ".join(map(str, own)))
    sections = [list(templates), list(sets), names, sizes, used, numbered, shapes]
    text = _SECTION.join(_LIST.join(section) for section in sections)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
    return lzma.compress(text.encode(), format=lzma.FORMAT_XZ, filters=filters)


def _runs(shapes: Iterable[tuple[int, ...]], own: dict[int, int]) -> str:
    """`0 1*3,2`: shapes as places among the list's sizes, repeated ones once."""
    runs: list[list[object]] = []
    for shape in shapes:
        text = " ".join(str(own.setdefault(n, len(own))) for n in shape)
        if runs and runs[-1][0] == text:
            runs[-1][1] = int(str(runs[-1][1])) + 1
        else:
            runs.append([text, 1])
    return _RUN.join(f"{text}*{count}" if count != 1 else str(text) for text, count in runs)


def _share(one: Set[Any], other: Set[Any]) -> float:
    """Of all that is in one or the other, how much is in both."""
    both = len(one & other)
    return both / ((len(one) + len(other) - both) or 1)


class KeyLists:
    """The lists of a file of `encode`'s; a list is decoded when it is wanted."""

    def __init__(self, data: bytes) -> None:
        sections = [s.split(_LIST) for s in lzma.decompress(data).decode().split(_SECTION)]
        self._templates, self._sets, names, self._sizes, used, self._numbered, self._shapes = sections
        self._same = dict(n.split("=") for n in names if "=" in n)
        self._places = {name: i for i, name in enumerate(n for n in names if "=" not in n)}
        self.names = tuple(n.split("=")[0] for n in names)
        self._used = [row.split(" ") for row in used]
        self._ids = {text: str(i) for i, text in enumerate(self._templates)}
        self._kinds = [frozenset(row) for row in self._used]
        self._own_sizes = [frozenset(map(int, row.split())) for row in self._sizes]

    def nearest(self, shapes: Shapes, count: int) -> list[tuple[float, str]]:
        """The lists whose kinds of names are most nearly these, with the share that is in both; then by sizes.

        Many U-Nets have the same kinds of names; the sizes in their shapes tell which is which.
        """
        own = {self._ids.get(kind, kind) for kind in set(map(template, shapes))}
        sizes = {size for shape in shapes.values() for size in shape}
        found = []
        for order, name in enumerate(self._places):
            kinds, theirs = self._kinds[order], self._own_sizes[order]
            found.append((_share(own, kinds), _share(sizes, theirs), -order, name))
        return [(share, name) for share, _, _, name in sorted(found, reverse=True)[:count]]

    def same(self, name: str) -> tuple[str, ...]:
        """All lists with exactly these tensors, itself among them: what tensors can't tell apart."""
        first = self._same.get(name, name)
        return tuple(n for n in self.names if self._same.get(n, n) == first)

    def __getitem__(self, name: str) -> dict[str, tuple[int, ...]]:
        """Name -> shape of a list's tensors."""
        place = self._place(name)
        sizes = [int(n) for n in self._sizes[place].split()]
        rows = zip(
            self._used[place], self._numbered[place].split(" "), self._shapes[place].split(_ROW), strict=True
        )  # fmt: skip
        found: dict[str, tuple[int, ...]] = {}
        for index, numbered, runs in rows:
            parts = self._templates[int(index)].split("#")
            shapes: list[tuple[int, ...]] = []
            for run in runs.split(_RUN):
                text, _, count = run.partition("*")
                shapes += [tuple(sizes[int(n)] for n in text.split())] * int(count or 1)
            for numbers, shape in zip(self._sets[int(numbered)].split(" "), shapes, strict=True):
                pairs = zip(parts, [*numbers.split("."), ""] if numbers else [""], strict=True)
                found["".join(part + number for part, number in pairs)] = shape
        return found

    def _place(self, name: str) -> int:
        name = self._same.get(name, name)
        if name not in self._places:
            raise UsageError(unknown("list of tensors", name, self.names), code="choice-unknown")
        return self._places[name]


@cache
def key_lists() -> KeyLists:
    """The lists that zoo has."""
    return KeyLists(FILE.read_bytes())
