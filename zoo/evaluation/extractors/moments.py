"""Mean and covariance of features that come in shards, merged in the order of the shards.

    n = n_a + n_b,  d = mean_b - mean_a,  mean = mean_a + d n_b / n,  M = M_a + M_b + d d^T n_a n_b / n

with M the sum of (x - mean)(x - mean)^T          (Chan, Golub & LeVeque 1979)

All in float64: a running sum in float32 is wrong by tens of per cent under a mean offset, and merging centred sums
loses nothing where raw sums would cancel. Merging in shard order makes the value the same for any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.schema.errors import NumericError, UsageError


def as_features(features: Tensor | np.ndarray, *, dtype: type | None = np.float64) -> np.ndarray:
    """(N, D) on the host, a copy in float64 (None: as it is); refuses what isn't finite or has another shape."""
    array = features.detach().cpu().numpy() if isinstance(features, Tensor) else np.asarray(features)
    if array.ndim != 2 or not array.size:
        raise UsageError(
            f"features are a table (N, D) and not of shape {array.shape}; flatten what an extractor gives",
            code="features-shape-wrong",
        )
    array = array if dtype is None else array.astype(dtype)
    if not np.isfinite(array).all():
        raise NumericError(
            "features are NaN or infinite; check the pictures and the extractor's weights", code="features-not-finite"
        )
    return array


@dataclass(frozen=True, eq=False)
class Moments:
    """How many samples, their mean (D,) and the sum of their centred outer products (D, D), in float64.

    Of foreign statistics N may be unknown: then `counted` is False, `count` 2, and the scatter is the covariance.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray
    counted: bool = True

    @classmethod
    def of(cls, features: Tensor | np.ndarray) -> Moments:
        """The moments of one shard (N, D)."""
        x = as_features(features)
        mean = x.mean(axis=0)
        x -= mean
        return cls(len(x), mean, x.T @ x)

    def merge(self, other: Moments) -> Moments:
        """The moments of both together."""
        if self.mean.shape != other.mean.shape:
            raise UsageError(
                f"moments of {len(self.mean)} and of {len(other.mean)} features can't be merged",
                code="moments-unmergeable",
            )
        if not (self.counted and other.counted):
            raise UsageError(
                "moments of an unknown number of samples can't be merged; make them anew from pictures",
                code="moments-unmergeable",
            )
        count = self.count + other.count
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)

    @property
    def covariance(self) -> np.ndarray:
        """(D, D), unbiased (divided by N - 1)."""
        if self.count < 2:
            raise UsageError(f"a covariance needs two samples or more, not {self.count}", code="images-too-few")
        return self.scatter / (self.count - 1)


def merge(parts: Iterable[Moments]) -> Moments:
    """All of them, in the order given."""
    total: Moments | None = None
    for part in parts:
        total = part if total is None else total.merge(part)
    if total is None:
        raise UsageError("there are no moments to merge; give one shard or more", code="moments-unmergeable")
    return total
