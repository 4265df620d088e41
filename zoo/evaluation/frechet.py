"""The Fréchet distance of two sets of features: of the Gaussians with their means and covariances.

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)          (Dowson & Landau 1982; Heusel et al. 2017)

It depends on the extractor and on N, so both stand in its key, `fd[EXTRACTOR@HASH]@N`; unlike keys are never compared.
Only the distance under the 2015 Inception is called FID, and this one isn't.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from zoo.errors import NumericError, UsageError


def distance_key(extractor: str, sha256: str, count: int) -> str:
    """The name that a distance goes by."""
    return f"fd[{extractor}@{sha256[:8]}]@{count}"


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """Of features (N, D) and (M, D), in float64 with unbiased covariances; at least 0."""
    if min(len(one), len(other)) < 2:
        raise UsageError(f"a Fréchet distance needs two samples or more of each, not {len(one)} and {len(other)}")
    a, b = (x.detach().double().cpu().numpy() for x in (one, other))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise NumericError("features are NaN or infinite; check the pictures and the extractor's weights")
    mean = a.mean(0) - b.mean(0)
    s1, s2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # tr (S1 S2)^(1/2) = sum of the roots of the eigenvalues of R^T S2 R, with S1 = R R^T: no matrix root is taken.
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(values.clip(0.0))
    cross = np.sqrt(np.linalg.eigvalsh(root.T @ s2 @ root).clip(0.0)).sum()
    spread = float(np.trace(s1) + np.trace(s2))
    distance = float(mean @ mean + spread - 2.0 * cross)
    assert distance > -1e-6 * (1.0 + spread), distance  # below 0 by rounding only
    return max(distance, 0.0)


def psnr(pictures: Tensor, truth: Tensor) -> float:
    """Mean over pictures (N, C, H, W) in [0, 1] of 10 log10(1 / mean squared error), in dB; at most 100."""
    error = (pictures.double() - truth.double()).square().flatten(1).mean(1)
    return float((-10.0 * error.clamp(min=1e-10).log10()).mean())
