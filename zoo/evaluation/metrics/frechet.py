"""The Fréchet distance of two sets of features: of the Gaussians with their means and covariances.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)          (Dowson & Landau 1982; Heusel et al. 2017, eq. 6)

No matrix root is taken. With S1 = R1 R1^T and S2 = R2 R2^T, the eigenvalues of S1 S2 are the squared singular values
of P = R1^T R2, so the last trace is their sum, the nuclear norm of P. Any roots will do:

- N <= D: the centred features themselves, turned so that one of them is 0 and falls away; P is (N - 1, M - 1), small;
- N > D: the Cholesky factor; where only singular moments are left (streamed, N <= D), that of an eigendecomposition,
  without the directions in which there can be nothing.

The singular values are roots of the eigenvalues of P P^T, which cost half as much. Squaring loses digits of small ones;
where an estimate says that these would show in the distance, the singular values of P itself are taken.

It depends on the extractor and on N, so both stand in its key, `fd[EXTRACTOR@HASH]@N`; unlike keys are never compared.
Only the distance under the 2015 Inception is called FID (zoo.evaluation.metrics.metrics).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.evaluation.extractors.moments import Moments, as_features
from zoo.evaluation.metrics.keys import distance_key
from zoo.schema.errors import NumericError, UsageError

__all__ = ["distance_key", "frechet_distance"]

_BELOW_ZERO = 1e-6  # of the covariances' traces: as far below 0 as rounding brings a distance
_ROUNDING = 1e-8  # of the covariances' traces: what the quicker way to singular values may be wrong by at most


@dataclass(frozen=True, eq=False)
class _Gaussian:
    mean: np.ndarray  # (D,)
    spread: float  # the trace of the covariance
    root: np.ndarray  # (D, rank), the covariance is root root^T


def frechet_distance(one: Tensor | np.ndarray | Moments, other: Tensor | np.ndarray | Moments) -> float:
    """The distance of features (N, D) and (M, D), or of their moments; float64, unbiased covariances, at least 0."""
    counts = [x.count if isinstance(x, Moments) else len(x) for x in (one, other)]
    if min(counts) < 2:
        raise UsageError(
            f"a Fréchet distance needs two samples or more of each, not {counts[0]} and {counts[1]}",
            code="images-too-few",
        )
    a, b = _gaussian(one), _gaussian(other)
    if len(a.mean) != len(b.mean):
        raise UsageError(
            f"features have {len(a.mean)} and {len(b.mean)} numbers; use one extractor for both sets",
            code="extractors-differ",
        )
    apart = a.mean - b.mean
    spread = a.spread + b.spread
    shared = _nuclear_norm(a.root.T @ b.root, within=_ROUNDING * spread)
    return _not_negative(float(apart @ apart) + spread - 2.0 * shared, spread)


def _nuclear_norm(matrix: np.ndarray, *, within: float) -> float:
    """The sum of its singular values, with an error that is estimated to be below `within`."""
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    values = np.linalg.eigvalsh(wide @ wide.T).clip(0.0)
    # An eigenvalue is wrong by about as much as the largest is rounded, and its root by the derivative times that.
    wrong = np.finfo(np.float64).eps * values[-1]
    roots = np.sqrt(values)
    errors = wrong / np.maximum(roots + np.sqrt(wrong), np.finfo(np.float64).tiny)
    buried = values <= wrong  # their roots are noise, and all above what they should be
    if np.linalg.norm(errors[~buried]) + errors[buried].sum() <= within:
        return float(roots.sum())
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def _not_negative(distance: float, spread: float) -> float:
    """The distance, 0 where rounding brought it below; a root that went wrong is no rounding."""
    if not distance >= -_BELOW_ZERO * spread:
        raise NumericError(
            f"a Fréchet distance came out at {distance:g} for covariances with traces of {spread:g}: the moments are "
            "damaged or not of one kind; extract the features again",
            code="statistics-damaged",
        )
    return max(distance, 0.0)


def _gaussian(given: Tensor | np.ndarray | Moments) -> _Gaussian:
    if not isinstance(given, Moments):
        x = as_features(given)
        if len(x) <= x.shape[1]:
            mean = x.mean(axis=0)
            x -= mean
            # A reflection that takes (1, ..., 1) to the first axis: what was centred has nothing left there.
            root = (x[1:] + x[0] / (np.sqrt(len(x)) - 1.0)).T / np.sqrt(len(x) - 1.0)
            return _Gaussian(mean, float(np.square(root).sum()), root)
        given = Moments.of(x)
    if not (np.isfinite(given.mean).all() and np.isfinite(given.scatter).all()):
        raise NumericError(
            "features are NaN or infinite; check the pictures and the extractor's weights", code="features-not-finite"
        )
    covariance = given.covariance
    rank = given.count - 1 if given.counted else len(covariance)
    return _Gaussian(given.mean, float(np.trace(covariance)), _root(covariance, rank=rank))


def _root(covariance: np.ndarray, *, rank: int) -> np.ndarray:
    if rank >= len(covariance):
        try:
            return np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            pass  # features that depend on each other
    values, vectors = np.linalg.eigh(covariance)
    return vectors[:, -rank:] * np.sqrt(values[-rank:].clip(0.0))
