"""Precision, recall, density and coverage: how two sets of images overlap, by balls around features.

The ball of a feature reaches to its k-th nearest neighbour of the same set.

| name | the share of | within |
|---|---|---|
| precision | generated images | a ball of a real one (Kynkäänniemi et al. 2019, eq. 2) |
| recall | real images | a ball of a generated one (eq. 3) |
| density | 1/k of the real balls that a generated image is in, averaged (Naeem et al. 2020, eq. 3) | |
| coverage | real images | whose ball holds a generated one (eq. 5) |

Values depend on both numbers of images and on k, so all three are in the key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.evaluation.extractors.moments import as_features
from zoo.schema.errors import UsageError

_ROWS = 1024  # of a distance matrix held at once


@dataclass(frozen=True)
class Manifold:
    """Shares in [0, 1], and a density that may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(generated: Tensor | np.ndarray, reference: Tensor | np.ndarray, *, k: int = 3) -> Manifold:
    """The shares for features (N, D) and (M, D), in float64, a strip of rows at a time."""
    x, y = as_features(generated), as_features(reference)
    if min(len(x), len(y)) <= k or k < 1:
        raise UsageError(
            f"precision and recall with k = {k} need more than {k} pictures of each, and there are {len(x)} and "
            f"{len(y)}; give more, or a smaller k (it is part of the key)",
            code="images-too-few",
        )
    # Distances are translation-invariant, and their squares lose fewer digits around 0.
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    around_x, around_y = _reach(x, k), _reach(y, k)
    inside = np.zeros(len(x), dtype=bool)
    balls = 0
    covered, recalled = np.zeros(len(y), dtype=bool), np.zeros(len(y), dtype=bool)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        apart = _squares(x[rows], y)
        inside[rows] = (apart <= around_y).any(axis=1)
        strictly = apart < around_y  # as Naeem et al. have it: a ball without its surface
        balls += int(strictly.sum())
        covered |= strictly.any(axis=0)
        recalled |= (apart <= around_x[rows, None]).any(axis=0)
    return Manifold(
        precision=float(inside.mean()), recall=float(recalled.mean()), density=balls / (k * len(x)),
        coverage=float(covered.mean()),
    )  # fmt: skip


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (len(a), len(b))."""
    apart = a @ b.T
    apart *= -2.0
    apart += np.square(a).sum(axis=1)[:, None]
    apart += np.square(b).sum(axis=1)
    return apart.clip(0.0, out=apart)


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each to its k-th nearest other, (N,)."""
    reach = np.empty(len(x))
    for start in range(0, len(x), _ROWS):
        apart = _squares(x[start : start + _ROWS], x)
        rows = np.arange(len(apart))
        apart[rows, start + rows] = np.inf  # itself is no neighbour
        reach[start : start + _ROWS] = np.partition(apart, k - 1, axis=1)[:, k - 1]
    return reach
