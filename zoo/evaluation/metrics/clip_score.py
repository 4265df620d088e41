"""CLIPScore: the similarity of an image and its caption under a CLIP.

    100 max(cos(image, text), 0), averaged over pairs          (Hessel et al. 2021, eq. 1, with w = 100)

It depends on the CLIP as much as on the images: its name and hash are in the key.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from zoo.evaluation.extractors.moments import as_features
from zoo.schema.errors import UsageError


def clip_scores(images: Tensor | np.ndarray, texts: Tensor | np.ndarray) -> np.ndarray:
    """Each pair's score in [0, 100], (N,), from embeddings (N, D) of any length."""
    x, y = as_features(images), as_features(texts)
    if x.shape != y.shape:
        raise UsageError(
            f"CLIPScore is of pairs, and there are pictures {x.shape} and captions {y.shape}; give one caption each, "
            "from the same CLIP",
            code="counts-differ",
        )
    cosine = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return 100.0 * cosine.clip(0.0, 1.0)


def clip_score(images: Tensor | np.ndarray, texts: Tensor | np.ndarray) -> float:
    """The mean over pairs."""
    return float(clip_scores(images, texts).mean())
