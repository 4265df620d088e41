"""Guidance in a limited interval of noise levels (Kynkäänniemi et al. 2024).

Guidance at the noisiest steps costs variety and at the cleanest ones does nothing. The guidance given is followed where
low < sigma / alpha <= high, and elsewhere the denoiser is asked as if it were not in the list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

from torch import Tensor

from zoo.diffusion.types import Condition, DenoiseFn, Guidance, Prediction, Step, StepTable
from zoo.guidance import arguments


@dataclass(frozen=True, kw_only=True)
class LimitedInterval:
    """Follow another guidance where low < sigma / alpha <= high; outside its cost is saved too.

    Args:
        guidance: what is limited, for instance classifier-free guidance; this stands where that would in the list.
    """

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


def at_scale(guidance: Guidance, scale: float) -> Guidance:
    """The guidance with another scale, where a call sets it."""
    made: Any = guidance  # a frozen dataclass
    argument, inner = getattr(guidance, "call_scale", None), getattr(guidance, "guidance", None)
    if argument is not None:
        return replace(made, **{argument: float(scale)})
    return guidance if inner is None else replace(made, guidance=at_scale(inner, scale))
