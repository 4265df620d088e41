"""The inception score: whether single images are of a clear class, and all together of many.

    exp( E_x KL( p(y | x) || p(y) ) ),  p(y) the mean of p(y | x)          (Salimans et al. 2016)

p is the softmax of the 2015 Inception's 1008 logits without their bias. The score is of a part of the images and
then averaged over the parts, and protocols split differently, so the protocol is in the key:

| protocol | parts |
|---|---|
| `torch-fidelity` | shuffled with seed 2020, then 10 equal parts |
| `adm` | consecutive parts of 5,000, in the order of the images |
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import log_softmax
from torch import Tensor

from zoo.evaluation.extractors.moments import as_features
from zoo.schema.errors import UsageError

PROTOCOLS = ("torch-fidelity", "adm")


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation over the parts."""

    mean: float
    deviation: float


def inception_score(
    logits: Tensor | np.ndarray, *, protocol: str = "torch-fidelity", splits: int = 10, seed: int = 2020,
    part: int = 5000,
) -> Score:  # fmt: skip
    """The score of logits (N, classes). `splits` and `seed` are torch-fidelity's, `part` ADM's."""
    x = as_features(logits)
    if protocol == "torch-fidelity":
        if len(x) < splits:
            raise UsageError(
                f"an inception score over {splits} parts needs as many pictures, not {len(x)}; give more",
                code="images-too-few",
            )
        x = x[np.random.RandomState(seed).permutation(len(x))]
        edges = [i * len(x) // splits for i in range(splits + 1)]
    elif protocol == "adm":
        edges = [*range(0, len(x), part), len(x)]
    else:
        raise UsageError(
            f"the inception score has no protocol '{protocol}'; use {' or '.join(PROTOCOLS)}", code="protocol-unknown"
        )
    scores = [_score(x[a:b]) for a, b in pairwise(edges)]
    return Score(float(np.mean(scores)), float(np.std(scores)))


def _score(logits: np.ndarray) -> float:
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    together = p.mean(axis=0)
    # A class that no image has at all adds nothing, as 0 log 0.
    log_together = np.log(np.where(together > 0.0, together, 1.0))
    return float(np.exp((p * (log_p - log_together)).sum(axis=1).mean()))
