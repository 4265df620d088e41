"""Which images of a split are near-copies of another split's: they test memorisation, not generation.

The rule: the mean absolute difference over all pixels and channels, at the size both are given in, is at most `LIMIT`
of 255 levels to some image of the other set. Area means can only bring two images closer, so a pair that is further
apart at 16 pixels than the limit is out without a look at the rest; nothing is estimated.

A split is named without them as `test-unlike-train`: the rows of `test` whose image, at 128 pixels, all but equals none
of `train`, in the order of the data.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.image_folder import ImageFolder
from zoo.schema.errors import UsageError

LIMIT = 4.0  # levels of 255
UNLIKE = "-unlike-"  # between two splits' names
SIZE = 128  # pixels a side at which images of a dataset are compared
_COARSE = 16  # pixels a side of the first look
_ROUNDING = 0.01  # levels, of float32 sums


def nearest_difference(images: Tensor, others: Tensor, *, limit: float = LIMIT) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, H, H) and (M, 3, H, H) -> the least mean difference (N,) in levels, and whose it is (N,) int64.

    Where none is within `limit`, the difference is infinite and the place -1.
    """
    if images.shape[1:] != others.shape[1:] or images.dtype != torch.uint8 or others.dtype != torch.uint8:
        raise UsageError(
            f"images {tuple(images.shape)} and {tuple(others.shape)} can't be compared; give uint8 (N, 3, H, H), all "
            "of one size",
            code="image-shape-wrong",
        )
    apart = torch.cdist(_coarse(images), _coarse(others), p=1) / _coarse(images[:1]).shape[1]
    least, place = torch.full((len(images),), torch.inf), torch.full((len(images),), -1)
    for i, j in (apart <= limit + _ROUNDING).nonzero().tolist():
        difference = float((images[i].short() - others[j].short()).abs().float().mean())
        if difference <= limit and difference < least[i]:
            least[i], place[i] = difference, j
    return least, place


def look_alikes(images: Tensor, others: Tensor, *, limit: float = LIMIT) -> Tensor:
    """Which of the images all but equal one of the others, (N,) bool."""
    return nearest_difference(images, others, limit=limit)[1] >= 0


def kept_places(path: str, split: str, other: str) -> tuple[int, ...]:
    """Which of a split's rows look like none of another's, as places among them; UsageError where one has no rows."""
    stamp = Path(path).stat()
    return _kept_places(path, split, other, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _kept_places(path: str, split: str, other: str, changed: int, size: int) -> tuple[int, ...]:
    """As `kept_places`, kept for as long as the data is the same."""
    ours, theirs = (ImageFolder(path=path, split=name, size=SIZE) for name in (split, other))
    alike = look_alikes(torch.from_numpy(ours.images()), torch.from_numpy(theirs.images()))
    return tuple(i for i, leaves in enumerate(alike.tolist()) if not leaves)


def _coarse(images: Tensor) -> Tensor:
    parts = [F.interpolate(part.float(), (_COARSE,) * 2, mode="area") for part in images.split(512)]
    return torch.cat(parts).flatten(1)
