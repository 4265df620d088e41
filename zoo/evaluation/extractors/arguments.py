"""Checks of metrics' and extractors' arguments, for their constructors and for a check without torch.

Each function raises ConfigError for arguments out of range.
"""

from __future__ import annotations

from zoo.schema.ranges import seeded, within

LARGEST_SIDE = 2**14  # pixels, and channels


def kid(*, subsets: int, size: int, seed: int) -> None:
    """Check the arguments of `zoo.evaluation.metrics.metrics:KID`."""
    seeded(seed)
    within(1, 10**6, {"subsets": subsets})
    within(2, 10**6, {"size": size})


def prdc(*, k: int) -> None:
    """Check the arguments of `zoo.evaluation.metrics.metrics:PRDC`."""
    within(1, 10**4, {"k": k}, usual=3)


def cmmd(*, sigma: float) -> None:
    """Check the arguments of `zoo.evaluation.metrics.metrics:CMMD`."""
    within(0.0, 1e6, {"sigma": sigma}, "(]", usual=10)


def random_network(*, seed: int, width: int, size: int, layers: int) -> None:
    """Check the arguments of `zoo.evaluation.extractors.random_network:RandomNetwork`."""
    seeded(seed)
    within(1, LARGEST_SIDE, {"width": width})
    within(1, 14, {"layers": layers})
    within(2**layers, LARGEST_SIDE, {"size": size})  # each layer halves it


def timm(*, size: int | None) -> None:
    """Check the arguments of `zoo.evaluation.extractors.backbones:Timm`."""
    within(1, LARGEST_SIDE, {"size": size})
