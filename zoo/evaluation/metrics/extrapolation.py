"""A Fréchet distance extrapolated to infinitely many images, and that of real images.

The distance of N images is too large by a term that falls as 1 / N, so a line through the distances of growing
subsets over 1 / N meets the axis near the distance itself (Chong & Forsyth 2020, sec. 3.1). Two sets of real images
have no distance but that term: what it is at the size at hand is the floor that stands beside every Fréchet distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.diffusion.draws import stream
from zoo.evaluation.extractors.moments import Moments, as_features
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.schema.errors import UsageError


@dataclass(frozen=True)
class Extrapolation:
    """Where the line meets 1 / N = 0, its slope, and the points it was laid through."""

    distance: float
    slope: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def extrapolate(counts: np.ndarray | list[int], distances: np.ndarray | list[float]) -> Extrapolation:
    """The least-squares line of distances over 1 / N."""
    inverse = 1.0 / np.asarray(counts, dtype=np.float64)
    slope, distance = np.polyfit(inverse, np.asarray(distances, dtype=np.float64), 1)
    return Extrapolation(
        float(distance), float(slope), tuple(int(n) for n in counts), tuple(float(d) for d in distances)
    )


def distance_at_infinity(
    generated: Tensor | np.ndarray, reference: Tensor | np.ndarray | Moments, *, points: int = 15,
    smallest: int | None = None, seed: int = 0,
) -> Extrapolation:  # fmt: skip
    """The Fréchet distance of features (N, D) to the reference, extrapolated over N; the reference stays as it is.

    Args:
        points: subsets, their sizes evenly spaced. smallest: the smallest size; 5,000 (or half of N) if not given.
        seed: of which images are in a subset.
    """
    x = as_features(generated)
    first = min(5000, len(x) // 2) if smallest is None else smallest
    if not 2 <= first < len(x) or points < 2:
        raise UsageError(
            f"extrapolation needs two subsets or more of at least two pictures, smaller than all {len(x)}; give more "
            "pictures or another `smallest`",
            code="images-too-few",
        )
    counts = np.unique(np.linspace(first, len(x), points).round().astype(int))
    fixed = reference if isinstance(reference, Moments) else as_features(reference)
    distances = []
    for place, count in enumerate(counts):
        rows = stream(seed, "extrapolation", place).permutation(len(x))[:count]
        distances.append(frechet_distance(x[rows], fixed))
    return extrapolate(list(counts), distances)


def real_floor(reference: Tensor | np.ndarray, count: int, *, seed: int = 0) -> float:
    """The Fréchet distance of `count` real images to the others: what perfect generated ones would have."""
    y = as_features(reference)
    if not 2 <= count <= len(y) - 2:
        raise UsageError(
            f"a floor of {count} pictures needs two more real ones beside them, and there are {len(y)}; use fewer or "
            "give more real pictures",
            code="images-too-few",
        )
    order = stream(seed, "real floor").permutation(len(y))
    return frechet_distance(y[order[:count]], y[order[count:]])
