"""Checks of metrics' and extractors' arguments, for their constructors and for a check without torch.

Each function raises UsageError for arguments out of range.
"""

from __future__ import annotations

import math

from zoo.schema.errors import UsageError
from zoo.schema.ranges import within

LARGEST_SIDE = 2**14  # pixels, and channels


def kid(*, subsets: int, size: int, seed: int) -> None:
    """Check the arguments of `zoo.evaluation.metrics.metrics:KID`."""
    seeded(seed=seed)
    within(-math.inf, 10**6, {"subsets": subsets, "size": size})
    if subsets < 1 or size < 2:
        raise UsageError(
            f"a kernel distance is of 1 or more subsets of 2 or more, not {subsets} of {size}",
            code="number-out-of-range",
        )


def prdc(*, k: int) -> None:
    """Check the arguments of `zoo.evaluation.metrics.metrics:PRDC`."""
    within(-math.inf, 10**4, {"k": k})
    if k < 1:
        raise UsageError(
            f"balls reach to the k-th neighbour, and k is {k}; give 1 or more, usual is 3", code="number-out-of-range"
        )


def cmmd(*, sigma: float) -> None:
    """Check the arguments of `zoo.evaluation.metrics.metrics:CMMD`."""
    within(-math.inf, 1e6, {"sigma": sigma})
    if not 0.0 < sigma < math.inf:
        raise UsageError(
            f"the kernel's sigma is {sigma}; give a number above 0, the paper's is 10", code="number-out-of-range"
        )


def random_network(*, seed: int, width: int, size: int, layers: int) -> None:
    """Check the arguments of `zoo.evaluation.extractors.random_network:RandomNetwork`."""
    seeded(seed=seed)
    within(-math.inf, LARGEST_SIDE, {"width": width, "size": size})
    if not 1 <= layers <= 16 or width < 1 or size < 2**layers:
        raise UsageError(
            f"a random network of {layers} layers needs width 1 and size {2 ** max(1, min(layers, 16))} or more",
            code="number-out-of-range",
        )


def seeded(*, seed: int | None) -> None:
    """Check the seed of random weights."""
    if seed is not None and not 0 <= seed < 2**64:
        raise UsageError(f"seed is {seed}; give a whole number from 0 up", code="seed-invalid")


def timm(*, size: int | None) -> None:
    """Check the arguments of `zoo.evaluation.extractors.backbones:Timm`."""
    within(-math.inf, LARGEST_SIDE, {"size": size})
    if size is not None and size < 1:
        raise UsageError(f"size is {size}; give pixels a side, 1 or more", code="size-invalid")
