"""Augmentation by address, with captions kept true.

An image's crop and flip are drawn from the stream that the caller gives, which is keyed by (seed, purpose, sample):
a resumed run, or one on other devices, sees the same images. An image is mirrored only where nothing said of
it would become wrong: not where its name, caption or keywords hold a word of direction, and not where `flip_unless`
matches (images of writing, of clocks).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.data import arguments
from zoo.schema.errors import UsageError
from zoo.schema.ranges import within

# Words whose meaning a mirror image changes.
DIRECTIONS = frozenset({
    "left", "right", "leftward", "leftwards", "rightward", "rightwards", "lefthand", "righthand", "lefthanded",
    "righthanded", "clockwise", "anticlockwise", "counterclockwise", "east", "west", "eastern", "western", "eastward",
    "westward", "northeast", "northwest", "southeast", "southwest", "mirrored",
})  # fmt: skip
SAID_OF_A_PICTURE = ("text", "name", "keywords")


def words_of(row: Mapping[str, Any]) -> set[str]:
    """The words of a row's caption, name and keywords, in lower case."""
    said: list[str] = []
    for column in SAID_OF_A_PICTURE:
        value = row.get(column) or ""
        said += [value] if isinstance(value, str) else [str(v) for v in value]
    return set(re.findall(r"[^\W_]+", " ".join(said).lower()))


def is_one_of(row: Mapping[str, Any], named: Sequence[str]) -> bool:
    """Whether any of `named` is true of a row: all its words are said of it, or `column=value`."""
    words = words_of(row)
    for one in named:
        column, equals, value = one.partition("=")
        if (str(row.get(column)) == value) if equals else (set(re.findall(r"[^\W_]+", one.lower())) <= words):
            return True
    return False


def centre(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 (3, H, W) -> (3, side, side) around the centre."""
    _require(image, side)
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    return np.ascontiguousarray(image[:, top : top + side, left : left + side])


def _require(image: np.ndarray, side: int) -> None:
    height, width = image.shape[-2:]
    if min(height, width) < side:
        raise UsageError(
            f"a picture of {width}x{height} is smaller than the crop of {side}; set a larger `resize`",
            code="image-too-small",
        )


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Crops at random and mirrors, where captions stay true.

    Args:
        crop: pixels a side of a window anywhere in the image; None keeps the image whole.
        flip: share of the images mirrored left to right, of those that may be.
        flip_unless: words, or `column=value`, whose images are never mirrored, besides words of direction.
    """

    crop: int | None = None
    flip: float = 0.0
    flip_unless: Sequence[str] = ()

    def __post_init__(self) -> None:
        arguments.augmented(flip=self.flip, flip_unless=self.flip_unless)
        within(1, math.inf, {"crop": self.crop})

    @property
    def does_nothing(self) -> bool:
        """Whether every image comes back as it is."""
        return self.crop is None and self.flip == 0.0

    def may_flip(self, row: Mapping[str, Any]) -> bool:
        """Whether the row's mirror image still matches its caption, name and keywords."""
        return not words_of(row) & DIRECTIONS and not is_one_of(row, self.flip_unless)

    def __call__(self, image: np.ndarray, row: Mapping[str, Any], draw: np.random.Generator) -> np.ndarray:
        """uint8 (3, H, W) -> uint8 (3, crop, crop), or the same size; the same for the same draw.

        Every call takes three numbers from `draw`, whatever it does with them.
        """
        down, across, mirror = draw.random(3)
        if self.crop is not None:
            _require(image, self.crop)
            top = int(down * (image.shape[1] - self.crop + 1))
            left = int(across * (image.shape[2] - self.crop + 1))
            image = image[:, top : top + self.crop, left : left + self.crop]
        if mirror < self.flip and self.may_flip(row):
            image = image[:, :, ::-1]
        return np.ascontiguousarray(image)
