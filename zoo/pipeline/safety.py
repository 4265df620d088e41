"""Checks on finished images, run before they are returned or written.

A check is any callable from images (B, 3, H, W) in [0, 1] to one `Verdict` each; a refused image is replaced by
grey and the verdict is in the record. No check is on by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from zoo.pipeline.safety_arguments import mean_brightness


@dataclass(frozen=True)
class Verdict:
    """A check's verdict on one image."""

    allowed: bool
    reason: str
    score: float


class SafetyCheck(Protocol):
    """The `safety` slot of a pipeline."""

    def __call__(self, images: Tensor) -> list[Verdict]: ...


@dataclass(frozen=True, kw_only=True)
class MeanBrightness:
    """The simplest check: refuses images that are nearly black or nearly white all over.

    Args:
        low, high: the mean of all pixels, in [0, 1], must lie between these.
    """

    fits = "zoo.pipeline.safety_arguments:mean_brightness"

    low: float = 0.02
    high: float = 0.995

    def __post_init__(self) -> None:
        mean_brightness(low=self.low, high=self.high)

    def __call__(self, images: Tensor) -> list[Verdict]:
        """images (B, 3, H, W) in [0, 1] -> one verdict an image; the score is its mean brightness."""
        verdicts = []
        for mean in images.mean(dim=(1, 2, 3)).tolist():
            allowed = self.low <= mean <= self.high
            reason = "" if allowed else f"mean brightness {mean:.3f} is outside {self.low} to {self.high}"
            verdicts.append(Verdict(allowed=allowed, reason=reason, score=mean))
        return verdicts
