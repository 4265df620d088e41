"""Kernel distances of two sets of features: the maximum mean discrepancy (Gretton et al. 2012).

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

| name | kernel | estimate |
|---|---|---|
| KID (Binkowski et al. 2018) | (x.y / D + 1)^3 | unbiased (x = x' left out), mean over 100 seeded subsets of 1,000 |
| CMMD (Jayasumana et al. 2024) | exp(-|x - y|^2 / (2 10^2)), of unit CLIP embeddings | biased, over all, times 1000 |

An unbiased estimate of a small distance may be below 0; it is left so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.evaluation.extractors.moments import as_features
from zoo.schema.errors import UsageError

_ROWS = 1024  # of a kernel matrix held at once


@dataclass(frozen=True)
class KernelDistance:
    """The mean over subsets, and the subsets' standard deviation (not that of the mean)."""

    mean: float
    deviation: float


def polynomial_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared MMD of (m, D) and (n, D) under (x.y / D + 1)^3, in float64."""
    m, n, width = len(x), len(y), x.shape[1]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # Cubed by hand: numpy's power of a real exponent is ten times slower.
        base = a @ b.T / width + 1.0
        return base * base * base

    own = [(k.sum() - np.trace(k)) / (c * (c - 1)) for k, c in ((kernel(x, x), m), (kernel(y, y), n))]
    return float(own[0] + own[1] - 2.0 * kernel(x, y).mean())


def kernel_distance(
    generated: Tensor | np.ndarray, reference: Tensor | np.ndarray, *, subsets: int = 100, size: int = 1000,
    seed: int = 2020,
) -> KernelDistance:  # fmt: skip
    """KID of features (N, D) and (M, D); the subsets are torch-fidelity's of the same seed."""
    x, y = as_features(generated, dtype=None), as_features(reference, dtype=None)
    if min(len(x), len(y)) < size or size < 2 or subsets < 1:
        raise UsageError(
            f"a kernel distance over {subsets} subsets of {size} needs as many pictures of each, and there are "
            f"{len(x)} and {len(y)}; give more, or a smaller subset (its size is part of the key)",
            code="images-too-few",
        )
    draw = np.random.RandomState(seed)  # the generator that published numbers used
    values = []
    for _ in range(subsets):
        rows = draw.choice(len(x), size, replace=False), draw.choice(len(y), size, replace=False)
        values.append(polynomial_mmd(x[rows[0]].astype(np.float64), y[rows[1]].astype(np.float64)))
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def cmmd(generated: Tensor | np.ndarray, reference: Tensor | np.ndarray, *, sigma: float = 10.0) -> float:
    """CMMD of unit embeddings (N, D) and (M, D): the biased squared MMD under a Gaussian kernel, times 1000."""
    x, y = as_features(generated), as_features(reference)
    for embeddings in (x, y):
        lengths = np.linalg.norm(embeddings, axis=1)
        if abs(lengths - 1.0).max() > 1e-3:
            raise UsageError(
                "CMMD is of unit embeddings, and these aren't; use a CLIP's, which are", code="extractor-unfit"
            )
    # 1 - k and not k: with this sigma every k is within 2 % of 1, and the difference of means would cancel.
    own = _mean_unlikeness(x, x, sigma) + _mean_unlikeness(y, y, sigma)
    return 1000.0 * (2.0 * _mean_unlikeness(x, y, sigma) - own)


def _mean_unlikeness(a: np.ndarray, b: np.ndarray, sigma: float) -> float:
    """The mean of 1 - exp(-|x - y|^2 / (2 sigma^2)), a strip of rows at a time."""
    total = 0.0
    squares = np.square(b).sum(axis=1)
    for start in range(0, len(a), _ROWS):
        rows = a[start : start + _ROWS]
        apart = np.square(rows).sum(axis=1)[:, None] + squares - 2.0 * rows @ b.T
        total -= float(np.expm1(apart.clip(0.0) / (-2.0 * sigma**2)).sum())
    return total / (len(a) * len(b))
