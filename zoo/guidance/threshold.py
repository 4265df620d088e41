"""Thresholding: hold the estimate of x0 in the range the data has.

Samples of pixels lie in [-1, 1]; an estimate outside is wrong, and strong guidance pushes it there. Static
thresholding clamps it (Saharia et al. 2022, section 2.3); DDPM's `clip_denoised` is this. Dynamic thresholding, of the
same section, first finds how far out the estimate is, s, the p-th percentile of |x0| in each sample; where s > 1 it
clamps to [-s, s] and divides by s. So strong guidance pulls saturated pixels back in, and loses no contrast between
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.diffusion.types import Condition, DenoiseFn, Prediction, Step, StepTable
from zoo.guidance import arguments


@dataclass(frozen=True, kw_only=True)
class StaticThreshold:
    """Clamp x0 to [low, high]. For pixels; latents have no such range."""

    papers = ("2205.11487 Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",)
    fits = "zoo.guidance.arguments:static_threshold"
    bounds_x0 = True

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        arguments.static_threshold(low=self.low, high=self.high)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The same denoiser with its x0 clamped."""

        def thresholded(x: Tensor, step: Step) -> Prediction:
            prediction = denoise(x, step)
            return prediction._replace(x0=prediction.x0.clamp(self.low, self.high))

        return thresholded


@dataclass(frozen=True, kw_only=True)
class DynamicThreshold:
    """Clamp x0 to its own percentile of |x0| and scale it back into [-1, 1]. For pixels; latents have no such range."""

    papers = ("2205.11487 Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",)
    fits = "zoo.guidance.arguments:dynamic_threshold"
    bounds_x0 = True

    percentile: float = 0.995

    def __post_init__(self) -> None:
        arguments.dynamic_threshold(percentile=self.percentile)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The same denoiser with the x0 of each sample held in [-1, 1]."""

        def thresholded(x: Tensor, step: Step) -> Prediction:
            prediction = denoise(x, step)
            x0 = prediction.x0
            size = _quantile(x0.flatten(1).abs(), self.percentile).clamp(min=1.0)
            size = size.view(-1, *[1] * (x0.ndim - 1))
            return prediction._replace(x0=torch.clamp(x0, -size, size) / size)

        return thresholded


def _quantile(rows: Tensor, q: float) -> Tensor:
    """The q-th quantile of each row, between neighbours linearly; torch.quantile refuses more than 2^24 numbers."""
    place = q * (rows.shape[1] - 1)
    below = int(place)
    ordered = rows.sort(dim=1).values
    above = min(below + 1, rows.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], place - below)
