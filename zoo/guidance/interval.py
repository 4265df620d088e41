"""Guidance in a limited interval of noise levels (Kynkäänniemi et al. 2024).

Guidance at the noisiest steps costs variety and at the cleanest ones does nothing. The guidance given is applied where
low < sigma / alpha <= high, and elsewhere the denoiser runs as if it were not in the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor

from zoo.diffusion.types import Condition, DenoiseFn, Guidance, Prediction, Step, StepTable
from zoo.guidance import arguments


@dataclass(frozen=True, kw_only=True)
class LimitedInterval:
    """Follow another guidance where low < sigma / alpha <= high; outside its cost is saved too.

    Args:
        guidance: the guidance to limit, for instance classifier-free guidance; this takes its place in the list.
    """

    papers = (
        "2404.07724 Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion "
        "Models",
    )
    fits = "zoo.guidance.arguments:interval"

    guidance: Guidance
    low: float = 0.0
    high: float = inf

    def __post_init__(self) -> None:
        arguments.interval(low=self.low, high=self.high)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The guided denoiser inside the interval, `denoise` itself outside."""
        guided = self.guidance.wrap(denoise, denoiser=denoiser, cond=cond, null=null, table=table)

        def limited(x: Tensor, step: Step) -> Prediction:
            # As products: at alpha = 0 the ratio is infinite, and inside only where high is.
            above = step.sigma > self.low * step.alpha
            below = self.high == inf or step.sigma <= self.high * step.alpha
            return (guided if above and below else denoise)(x, step)

        return limited


def holds_classifier_free(guidance: Guidance) -> bool:
    """Whether a call sets its scale (`guidance=`), or that of the guidance it holds."""
    return classifier_free_scale(guidance) is not None


def classifier_free_scale(guidance: Guidance) -> float | None:
    """The scale that a call sets, where this guidance or the one it holds declares which (`call_scale`)."""
    argument, inner = getattr(guidance, "call_scale", None), getattr(guidance, "guidance", None)
    if argument is not None:
        return getattr(guidance, argument)
    return None if inner is None else classifier_free_scale(inner)


def scales_each(guidance: Guidance) -> bool:
    """Whether a call may set a scale a sample of this guidance, or of the one it holds (`scale_each`)."""
    if getattr(guidance, "call_scale", None) is not None:
        return bool(getattr(guidance, "scale_each", False))
    inner = getattr(guidance, "guidance", None)
    return inner is not None and scales_each(inner)


def at_scales(guidance: Guidance, scales: Sequence[float | None]) -> Guidance:
    """The guidance with the scales that a call sets, one a sample; None leaves its own."""
    own = classifier_free_scale(guidance)
    if own is None or all(scale is None for scale in scales):
        return guidance
    values = [own if scale is None else scale for scale in scales]
    return at_scale(guidance, values[0] if len(set(values)) == 1 else torch.tensor(values))


def at_scale(guidance: Guidance, scale: float | Tensor) -> Guidance:
    """The guidance with another scale, where a call sets it; a tensor is one a sample."""
    made: Any = guidance  # a frozen dataclass
    argument, inner = getattr(guidance, "call_scale", None), getattr(guidance, "guidance", None)
    if argument is not None:
        return replace(made, **{argument: scale if isinstance(scale, Tensor) else float(scale)})
    return guidance if inner is None else replace(made, guidance=at_scale(inner, scale))
