"""Checks of the datasets' arguments, for their constructors and for a recipe's check without torch.

Each function raises ConfigError for arguments out of range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo.images.decode import LARGEST_PICTURE
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of, ordered, seeded, within

MOST_VALUES = 2**30  # of made-up rows: 4 GiB
LARGEST_SIDE = math.isqrt(LARGEST_PICTURE)  # pixels a side that images are made


def pictures(
    *, size: int, resize: int | None, crop: str, flip: float, flip_unless: Sequence[str], smallest: int | None,
    on_bad: str,
) -> None:  # fmt: skip
    """Check the arguments of `zoo.data.dataset:PictureDataset`, from whatever source."""
    if not 1 <= size <= LARGEST_SIDE:
        raise ConfigError(f"size is {size}; give pixels a side, from 1 to {LARGEST_SIDE}", code="size-invalid")
    within(size, LARGEST_SIDE, {"resize": resize})  # from which `size` is cropped
    one_of("crop", crop, ("centre", "random"))
    one_of("on_bad", on_bad, ("error", "skip"))
    within(1, LARGEST_SIDE, {"smallest": smallest})
    augmented(flip=flip, flip_unless=flip_unless)


def augmented(*, flip: float, flip_unless: Sequence[str]) -> None:
    """Check the arguments of `zoo.data.augmentation:Augment`."""
    within(0.0, 1.0, {"flip": flip})
    if isinstance(flip_unless, str) or not all(isinstance(u, str) and u.strip() for u in flip_unless):
        raise ConfigError("flip_unless takes a list of words or `column=value`", code="argument-type-wrong")


def sines(
    *, size: int | Sequence[int], count: int, low: float, high: float, amplitude: float, split: str | None, seed: int
) -> None:  # fmt: skip
    """Check the arguments of `zoo.data.sines:Sines`."""
    lengths = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(lengths) <= 3 or any(length < 2 for length in lengths):
        raise ConfigError(f"size is {size}; give samples along one to three axes, each 2 or more", code="size-invalid")
    within(1, MOST_VALUES // math.prod(lengths), {"count": count})  # all are made at once
    within(0.0, min(lengths) / 2, {"low": low, "high": high}, "(]")  # cycles, of so few samples
    ordered({"low": low, "high": high})
    within(0.0, 1.0, {"amplitude": amplitude}, "(]")
    if split not in (None, "train", "val"):
        raise ConfigError(f"the split is '{split}'; waves have train and val", code="split-unknown")
    seeded(seed)
