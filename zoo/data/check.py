"""What is wrong with a dataset, found before training starts.

Problems spoil training or evaluation: what can't be read, lacks a caption, is too small, or is in the data twice, above
all in two splits. Notes are for a person to judge: images that look alike, odd shapes, captions that will be
cut off. Near-duplicates are found by a difference hash (64 bits: whether each cell of an 8x8 grey image is brighter
than its right neighbour), and confirmed by the mean difference of 8x8 colour thumbnails.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.dataset import Row, Source, reason_of
from zoo.data.image_folder import FolderSource
from zoo.data.web_dataset import ShardSource
from zoo.images.decode import TRANSPARENT, eight_bits, on_white, open_picture
from zoo.schema.advice import option
from zoo.schema.errors import UsageError

PLAIN_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
LONGEST_SIDES = 2.0  # ratio of the sides from which the centre crop loses half
NEAR = 2.0  # mean difference of thumbnails, in levels of 255
MOST_NEIGHBOURS = 64  # compared in one bucket of equal hash parts
MOST_CLASSES = 200  # a column with more values is no label
LONG_CAPTION = 60  # words; CLIP reads 75 tokens


@dataclass(frozen=True)
class Finding:
    """One kind of problem or note: how often, and the first few."""

    what: str
    count: int
    examples: tuple[str, ...]
    problem: bool = True  # otherwise a note


@dataclass(frozen=True)
class Report:
    """Everything found; `clean` where nothing is a problem."""

    path: str
    rows: int
    splits: dict[str, int]
    labels: dict[str, dict[str, int]]  # of each label column, how many rows of each class
    findings: tuple[Finding, ...] = field(default=())

    @property
    def clean(self) -> bool:
        """Whether there are no problems."""
        return not any(f.problem for f in self.findings)


def open_source(path: str) -> Source:
    """A folder or zip with metadata.jsonl, or tar shards, by what is there."""
    place = Path(path)
    folder_of_shards = (
        place.is_dir()
        and not any((place / f"metadata.{e}").exists() for e in ("jsonl", "csv"))
        and any(place.glob("*.tar"))
    )
    return ShardSource(path) if folder_of_shards or path.endswith(".tar") else FolderSource(path)


def check(
    path: str, *, size: int = 64, unknown_words: Callable[[str], list[str]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:  # fmt: skip
    """Read every row and image once, and say what is wrong.

    `unknown_words` returns the words of a caption that a conditioner does not know. UsageError where `path` can't be
    opened at all.
    """
    source = open_source(path)
    seen = _Seen()
    for broken in source.broken:
        seen.add(broken.reason, broken.sentence)
    names = Counter(row["file_name"] for row in source.rows)
    for name, times in names.items():
        if times > 1:
            seen.add("listed twice", f"{name} ({times} times)")
    for index, row in enumerate(source.rows):
        _look(source, index, row, size, seen)
        _listen(row, seen, unknown_words)
        if progress is not None:
            progress(index + 1, len(source.rows))
    if not source.rows and not source.broken:
        seen.add("no rows", "there is nothing to train on")
    _doubles(source.rows, seen)
    return Report(
        path=path,
        rows=len(source.rows),
        splits=dict(Counter(str(row.get("split") or "none") for row in source.rows)),
        labels=_labels(source.rows),
        findings=seen.findings(),
    )


class _Seen:
    """Problems and notes by kind, and what is kept of every image."""

    def __init__(self) -> None:
        self.troubles: dict[tuple[str, bool], list[str]] = defaultdict(list)
        self.exact: dict[bytes, list[int]] = defaultdict(list)
        self.hashes: list[int] = []
        self.thumbnails: list[np.ndarray] = []
        self.places: list[int] = []

    def add(self, what: str, example: str, *, problem: bool = True) -> None:
        self.troubles[what, problem].append(example)

    def findings(self) -> tuple[Finding, ...]:
        made = [Finding(what, len(e), tuple(e[:3]), problem) for (what, problem), e in self.troubles.items()]
        return tuple(sorted(made, key=lambda f: (not f.problem, -f.count, f.what)))


def _look(source: Source, index: int, row: Row, size: int, seen: _Seen) -> None:
    """The image itself."""
    name = row["file_name"]
    try:
        picture = open_picture(source.read(index), name=name, where=source.where, deep="keep")
        mode, clear = picture.mode, "transparency" in picture.info
        picture = eight_bits(picture, f"'{name}'")
    except UsageError as error:
        seen.add(reason_of(error), str(error))
        return
    width, height = picture.size
    if min(width, height) < size:
        seen.add(f"smaller than {size}", f"{name} ({width}x{height})")
    if max(width, height) >= LONGEST_SIDES * min(width, height):
        seen.add("long and narrow", f"{name} ({width}x{height})", problem=False)
    if mode in TRANSPARENT or clear:
        seen.add(f"transparent: trained on white; evaluate with {option('background', 'white')}", name, problem=False)
    if mode not in PLAIN_MODES:
        seen.add(f"unusual mode {mode}", name, problem=False)
    colour = on_white(picture)
    shape = f"{colour.width}x{colour.height} ".encode()
    seen.exact[hashlib.sha256(shape + colour.tobytes()).digest()].append(index)
    grey = np.asarray(colour.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(grey[:, :-1] > grey[:, 1:])
    seen.hashes.append(int.from_bytes(bits.tobytes(), "big"))
    seen.thumbnails.append(np.asarray(colour.resize((8, 8), Image.Resampling.BOX), dtype=np.int16))
    seen.places.append(index)


def _listen(row: Row, seen: _Seen, unknown_words: Callable[[str], list[str]] | None) -> None:
    """The caption."""
    text = row["text"]
    if not text.strip():
        seen.add("empty caption", row["file_name"])
    elif len(text.split()) > LONG_CAPTION:
        seen.add("over-long caption", f"{row['file_name']} ({len(text.split())} words)", problem=False)
    elif unknown_words is not None and (strange := unknown_words(text)):
        seen.add("words the conditioner does not know", f"{row['file_name']} ({', '.join(strange)})", problem=False)


def _doubles(rows: list[Row], seen: _Seen) -> None:
    """The same image twice, and images that look the same; those in two splits apart."""
    known: set[tuple[int, int]] = set()
    for same in seen.exact.values():
        for other in same[1:]:
            known.add((same[0], other))
            leak = rows[same[0]].get("split") != rows[other].get("split")
            seen.add("same picture in two splits" if leak else "same picture twice", _pair(rows, same[0], other))
    twins = {place for same in seen.exact.values() for place in same[1:]}
    for one, other in _near(seen):
        if one in twins or other in twins:
            continue
        leak = rows[one].get("split") != rows[other].get("split")
        what = "look alike, in two splits" if leak else "look alike"
        seen.add(what, _pair(rows, one, other), problem=False)


def _near(seen: _Seen) -> Iterable[tuple[int, int]]:
    """Pairs of places whose hashes share a quarter and whose thumbnails hardly differ, each once."""
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, value in enumerate(seen.hashes):
        for part in range(4):
            buckets[part, value >> (16 * part) & 0xFFFF].append(i)
    found: set[tuple[int, int]] = set()
    for members in buckets.values():
        members.sort(key=lambda i: seen.hashes[i])  # the nearest stand beside each other
        for k, i in enumerate(members):
            for j in members[k + 1 : k + 1 + MOST_NEIGHBOURS]:
                if (seen.hashes[i] ^ seen.hashes[j]).bit_count() > 3:
                    continue
                if np.abs(seen.thumbnails[i] - seen.thumbnails[j]).mean() <= NEAR:
                    found.add((min(i, j), max(i, j)))
    return [(seen.places[i], seen.places[j]) for i, j in sorted(found)]


def _pair(rows: list[Row], one: int, other: int) -> str:
    first, second = rows[one], rows[other]
    return " = ".join(f"{r['file_name']}" + (f" ({r['split']})" if r.get("split") else "") for r in (first, second))


def _labels(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Columns of few values, most frequent class first."""
    made: dict[str, dict[str, int]] = {}
    columns: list[str] = sorted({key for row in rows[:1000] for key in row} - {"file_name", "text", "split"})
    for column in columns:
        values: list[Any] = [row.get(column) for row in rows]
        if not all(v is None or isinstance(v, str | int) for v in values):
            continue
        counted = Counter("none" if v is None else str(v) for v in values)
        if 1 < len(counted) <= min(MOST_CLASSES, len(rows) // 2):
            made[column] = dict(counted.most_common())
    return made
