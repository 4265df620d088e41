"""Distortions of hand-drawn images: outlines that wander, patchy tones, edges sharpened after a blur.

Generated drawings look so, and other drawings of the same thing differ in outline more than a turn
or a zoom changes them. Parts of `zoo.data.distortions`, by the same streams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

KNOTS = (4, 9)  # a side, of the coarse and of the fine field
DRAWS = 8  # uniform numbers an image takes


def _field(draws: Sequence[np.random.Generator], channels: int, knots: int, size: int) -> Tensor:
    """(N, channels, size, size): normal numbers at `knots` x `knots` places, smooth in between (bicubic)."""
    values = np.stack([g.standard_normal((channels, knots, knots), dtype=np.float32) for g in draws])
    return F.interpolate(torch.from_numpy(values), (size, size), mode="bicubic", align_corners=True)


def wandering(u: np.ndarray, draws: Sequence[np.random.Generator], size: int, share: float, reach: float) -> Tensor:
    """Displacements (B, size, size, 2) for `grid_sample`, zero for most images (Simard et al. 2003, elastic).

    A `share` of the images wander, by a standard deviation of up to `reach` of the side in the coarse field and half
    of it in the fine one.
    """
    moved = torch.zeros(len(u), size, size, 2)
    chosen = np.flatnonzero(u[:, 0] < share).tolist()
    if chosen:
        coarse, fine = (_field([draws[i] for i in chosen], 2, knots, size) for knots in KNOTS)
        much, of_fine = (torch.from_numpy(u[chosen, n]).float()[:, None, None, None] for n in (1, 2))
        moved[chosen] = (2 * reach * much * (coarse + 0.5 * of_fine * fine)).permute(0, 2, 3, 1)
    return moved


def mottled(x: Tensor, u: np.ndarray, draws: Sequence[np.random.Generator], share: float, depth: float) -> Tensor:
    """A `share` of (B, 3, H, H) in [-1, 1] with tones that differ from place to place, by up to `depth`; white stays.

    One field for all channels and a weaker one for each: patches lighter and darker, and a little of another hue.
    """
    chosen = np.flatnonzero(u[:, 3] < share).tolist()
    if chosen:
        of_all, of_each = (_field([draws[i] for i in chosen], n, KNOTS[1], x.shape[-1]) for n in (1, 3))
        by = torch.from_numpy(depth * u[chosen, 4]).float()[:, None, None, None]
        tone = (by * (of_all + 0.3 * of_each)).to(x.device)
        x[chosen] = 1 - (1 - x[chosen]) * (1 + tone).clamp(0, 2)
    return x


def sharpened(
    x: Tensor, soften: Callable[[Tensor], Tensor], u: np.ndarray, share: float, most: float
) -> Tensor:  # fmt: skip
    """A `share` of (B, 3, H, H) moved away from what `soften` makes of it, by up to `most` times their difference."""
    chosen = np.flatnonzero(u[:, 5] < share).tolist()
    if chosen:
        by = torch.from_numpy(most * u[chosen, 6]).float().to(x.device)[:, None, None, None]
        part = x[chosen]
        x[chosen] = (part + by * (part - soften(part))).clamp_(-1, 1)
    return x
