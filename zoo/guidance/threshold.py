"""Thresholding: hold the estimate of x0 in the range the data has.

Samples of pixels lie in [-1, 1]; an estimate outside is wrong, and strong guidance pushes it there. Static
thresholding clamps it (Saharia et al. 2022, section 2.3); DDPM's `clip_denoised` is this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.errors import ConfigError
from zoo.types import Condition, DenoiseFn, Prediction, Step, StepTable


@dataclass(frozen=True, kw_only=True)
class StaticThreshold:
    """Clamp x0 to [low, high]. For pixels; latents have no such range."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a threshold needs low < high, not {self.low} and {self.high}")

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The same denoiser with its x0 clamped."""

        def thresholded(x: Tensor, step: Step) -> Prediction:
            prediction = denoise(x, step)
            return prediction._replace(x0=prediction.x0.clamp(self.low, self.high))

        return thresholded
