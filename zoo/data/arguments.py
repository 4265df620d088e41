"""Checks of the datasets' arguments, for their constructors and for a recipe's check without torch.

Each function raises ConfigError for arguments out of range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo.images.decode import LARGEST_PICTURE
from zoo.schema.errors import ConfigError

MOST_VALUES = 2**30  # of made-up rows: 4 GiB
LARGEST_SIDE = math.isqrt(LARGEST_PICTURE)  # pixels a side that images are made


def pictures(
    *, size: int, resize: int | None, crop: str, flip: float, flip_unless: Sequence[str], smallest: int | None,
    on_bad: str,
) -> None:  # fmt: skip
    """Check the arguments of `zoo.data.dataset:PictureDataset`, from whatever source."""
    if not 1 <= size <= LARGEST_SIDE:
        raise ConfigError(f"size is {size}; give pixels a side, from 1 to {LARGEST_SIDE}", code="size-invalid")
    if resize is not None and not size <= resize <= LARGEST_SIDE:
        raise ConfigError(
            f"resize is {resize} and the size cropped from it {size}; give pixels from {size} to {LARGEST_SIDE}",
            code="number-out-of-range",
        )
    if crop not in ("centre", "random"):
        raise ConfigError(f"crop is '{crop}'; use 'centre' or 'random'", code="choice-unknown")
    if on_bad not in ("error", "skip"):
        raise ConfigError(f"on_bad is '{on_bad}'; use 'error' or 'skip'", code="choice-unknown")
    if smallest is not None and not 1 <= smallest <= LARGEST_SIDE:
        raise ConfigError(
            f"smallest is {smallest}; give pixels from 1 to {LARGEST_SIDE}, or leave it out", code="number-out-of-range"
        )
    augmented(flip=flip, flip_unless=flip_unless)


def augmented(*, flip: float, flip_unless: Sequence[str]) -> None:
    """Check the arguments of `zoo.data.augmentation:Augment`."""
    if not 0.0 <= flip <= 1.0:
        raise ConfigError(f"flip is {flip}; it is a share from 0 to 1", code="number-out-of-range")
    if isinstance(flip_unless, str) or not all(isinstance(u, str) and u.strip() for u in flip_unless):
        raise ConfigError("flip_unless takes a list of words or `column=value`", code="argument-type-wrong")


def sines(
    *, size: int | Sequence[int], count: int, low: float, high: float, amplitude: float, split: str | None, seed: int
) -> None:  # fmt: skip
    """Check the arguments of `zoo.data.sines:Sines`."""
    lengths = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(lengths) <= 3 or any(length < 2 for length in lengths):
        raise ConfigError(f"size is {size}; give samples along one to three axes, each 2 or more", code="size-invalid")
    if count < 1 or count * math.prod(lengths) > MOST_VALUES:
        raise ConfigError(
            f"count is {count}; give 1 or more, and at most {MOST_VALUES // math.prod(lengths)} of this size: all are "
            "made at once",
            code="number-out-of-range",
        )
    if not 0.0 < low <= high or high > min(lengths) / 2:
        raise ConfigError(
            f"low and high are {low:g} and {high:g}; give cycles above 0, at most {min(lengths) // 2} for so few "
            "samples",
            code="number-out-of-range",
        )
    if not 0.0 < amplitude <= 1.0:
        raise ConfigError(
            f"amplitude is {amplitude:g}; it is the least of any wave, above 0 and at most 1",
            code="number-out-of-range",
        )
    if split not in (None, "train", "val"):
        raise ConfigError(f"the split is '{split}'; waves have train and val", code="split-unknown")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed is {seed}; give a whole number from 0 to 2**64 - 1", code="seed-invalid")
