"""What training reads: the protocol of datasets, and all that folders, zips and tar shards share.

A `Source` knows where rows and bytes are; `PictureDataset` makes images of one size from them. Rows are listed once
and read by place, so that the order of training is a function of (seed, step) and not of how the data is stored.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from zoo.data import arguments
from zoo.data.augmentation import Augment, centre
from zoo.images.decode import centre_square, on_white, open_picture, scaled, to_array
from zoo.schema.errors import UsageError

Row = dict[str, Any]
_SURROGATE = re.compile("[\ud800-\udfff]")
THREADS = 16  # that decode
UNCROPPED = 4 * 2**30  # bytes of images kept to be cropped from


class Skipped(NamedTuple):
    """A row that was left out: which, why in a word or two, and the whole sentence."""

    name: str
    reason: str
    sentence: str


class Source(Protocol):
    """Where rows and their bytes are. `rows` and `broken` are listed when it is opened."""

    where: str  # for sentences
    rows: list[Row]  # each with `file_name` and `text`
    broken: list[Skipped]  # what is no row

    def read(self, index: int) -> bytes:
        """The bytes of a row's image; UsageError naming the file."""
        ...

    def fingerprint(self) -> str:
        """The name of a cache; another one where the data changed."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Images with captions, by place. Every registered dataset is one."""

    rows: Sequence[Row]  # `file_name`, `text` and whatever else the data has
    size: int  # pixels a side
    split: str | None
    augments: bool  # whether `augmented` differs from `image`
    skipped: Sequence[Skipped]

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Row `index` as uint8 (3, size, size), always the same."""
        ...

    def augmented(self, index: int, draw: np.random.Generator) -> np.ndarray:
        """Row `index` as uint8 (3, size, size), cropped and mirrored by `draw`."""
        ...

    def images(self, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """All images, uint8 (N, 3, size, size)."""
        ...

    def fingerprint(self) -> str:
        """What decides `images()`: data, split and size."""
        ...


class PictureDataset:
    """Images of one size from a source. See `Dataset`; subclasses say how the source is opened."""

    fits = "zoo.data.arguments:pictures"

    def __init__(
        self, source: Source, *, split: str | None, size: int, resize: int | None, crop: Literal["centre", "random"],
        flip: float, flip_unless: Sequence[str], smallest: int | None, on_bad: Literal["error", "skip"],
    ) -> None:  # fmt: skip
        arguments.pictures(
            size=size, resize=resize, crop=crop, flip=flip, flip_unless=flip_unless, smallest=smallest, on_bad=on_bad
        )
        self.source, self.split, self.size, self.resize, self.smallest = source, split, size, resize or size, smallest
        self.augment = Augment(crop=size if crop == "random" else None, flip=flip, flip_unless=tuple(flip_unless))
        self.skipped: list[Skipped] = list(source.broken)
        if self.skipped and on_bad == "error":
            raise UsageError(self.skipped[0].sentence, code="data-row-broken")
        wanted_splits = None if split is None else split.split("+")
        self._places = [
            i for i, row in enumerate(source.rows) if wanted_splits is None or row.get("split") in wanted_splits
        ]
        if on_bad == "skip":
            self._places = [i for i in self._places if self._is_good(i)]
        self.rows: list[Row] = [source.rows[i] for i in self._places]
        if not self.rows:
            wanted = f" of split '{split}'" if split else ""
            first = f"; {len(self.skipped)} were left out: {self.skipped[0].sentence}" if self.skipped else ""
            raise UsageError(f"'{source.where}' has no rows{wanted}{first}", code="data-empty")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def augments(self) -> bool:
        """Whether `augmented` differs from `image`."""
        return not self.augment.does_nothing

    @property
    def reasons(self) -> Counter[str]:
        """How many rows were left out, by reason."""
        return Counter(skipped.reason for skipped in self.skipped)

    def _is_good(self, place: int) -> bool:
        """Whether a row's image can be used; counted in `skipped` if not. It is decoded to know."""
        try:
            self._picture(place)
        except UsageError as error:
            self.skipped.append(Skipped(self.source.rows[place]["file_name"], reason_of(error), str(error)))
            return False
        return True

    def _picture(self, place: int) -> Image.Image:
        name = self.source.rows[place]["file_name"]
        picture = open_picture(self.source.read(place), name=name, where=self.source.where)
        if self.smallest is not None and min(picture.size) < self.smallest:
            raise UsageError(
                f"'{name}' in '{self.source.where}' is {picture.width}x{picture.height}, smaller than {self.smallest} "
                "pixels; leave it out with on_bad: skip, or lower `smallest`",
                code="image-too-small",
            )
        return picture

    def image(self, index: int) -> np.ndarray:
        """Row `index` as uint8 (3, size, size): transparent parts on white, area average, square centre crop."""
        picture = scaled(centre_square(on_white(self._picture(self._places[index]))), self.resize)
        return centre(to_array(picture), self.size)

    def augmented(self, index: int, draw: np.random.Generator) -> np.ndarray:
        """Row `index` as uint8 (3, size, size), its window and mirroring by `draw`.

        A random window may lie anywhere in an image that isn't square; a centred one is that of `image`.
        """
        if self.augment.crop is None:
            return self.augment(self.image(index), self.rows[index], draw)
        whole = to_array(scaled(on_white(self._picture(self._places[index])), self.resize))
        return self.augment(whole, self.rows[index], draw)

    def images(self, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """All images, uint8 (N, 3, size, size)."""
        out = room_for((len(self), 3, self.size, self.size))
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:  # decoding releases the GIL
            for i, image in enumerate(threads.map(self.image, range(len(self)))):
                out[i] = image
                if progress is not None:
                    progress(i + 1)
        return out

    def uncropped(self, *, largest: int = UNCROPPED) -> np.ndarray | None:
        """All images as `augmented` crops them, uint8 (N, 3, H, W); None where they differ in size or take more
        bytes than `largest`."""
        out: np.ndarray | None = None
        for i, place in enumerate(self._places):
            whole = to_array(scaled(on_white(self._picture(place)), self.resize))
            if out is None:
                if len(self) * whole.nbytes > largest:
                    return None
                out = np.empty((len(self), *whole.shape), dtype=np.uint8)
            if whole.shape != out.shape[1:]:
                return None
            out[i] = whole
        return out

    def fingerprint(self) -> str:
        """What decides `images()` besides the rows: data, split, size, and the resize where there is one."""
        resized = f" {self.resize}" if self.resize != self.size else ""
        return f"{self.size} {self.split} {self.source.fingerprint()}{resized}"


def trouble_of(row: Any) -> str | None:
    """Which of a row's columns has the wrong type; None where none has."""
    for column, kinds, said in (
        ("split", str, "text"), ("name", str, "text"), ("concept", str, "text"), ("also", str, "text"),
        ("keywords", (str, list), "a list of words"), ("captions", list, "a list of captions"),
    ):  # fmt: skip
        value = row.get(column)
        if value is None:
            continue
        parts = value if isinstance(value, list) else [value]
        if not isinstance(value, kinds) or not all(isinstance(part, str) for part in parts):
            return f"has the {column} {str(value)[:40]!r}, which is no {said}"
    for column in ("file_name", "text"):
        value = row.get(column)
        if isinstance(value, str) and (
            (column == "text" and "\0" in value) or (not value.isascii() and _SURROGATE.search(value))
        ):
            return f"has a {column} that is no text (a NUL, or half of a character)"
    return None


def room_for(shape: tuple[int, ...]) -> np.ndarray:
    """An array for images, uint8 of this shape; UsageError where it would be larger than the machine's memory."""
    needed = math.prod(shape)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > there:
        raise UsageError(
            f"{shape[0]} images of {shape[2]}x{shape[3]} take {needed / 2**30:.0f} GiB and this machine has "
            f"{there / 2**30:.0f}; use fewer rows or a smaller size",
            code="memory-exceeded",
        )
    return np.empty(shape, dtype=np.uint8)


def reason_of(error: Exception) -> str:
    """A refusal in a word or two, to count by."""
    sentence = str(error)
    for sign, reason in (
        ("leaves its folder", "leaves the folder"), ("outside its folder", "leaves the folder"),
        ("smaller than", "too small"), ("pixels; make it smaller", "too large"), ("are read", "too large"),
        ("is not a picture", "not a picture"), ("has no file", "missing file"),
    ):  # fmt: skip
        if sign in sentence:
            return reason
    return "unreadable"
