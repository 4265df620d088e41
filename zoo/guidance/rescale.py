"""Rescaled guidance (Lin et al. 2024, section 3.4): strong guidance scaled to the spread of the conditional prediction.

Guidance that moves a prediction away from the unconditional one also makes it larger, and images come out
overexposed. With F_guided the guided prediction in some space and F_cond the condition's own, each sample is scaled
back towards the standard deviation that it had:

    F_rescaled = F_guided * std(F_cond) / std(F_guided)            (eq. 15)
    F = strength * F_rescaled + (1 - strength) * F_guided          (eq. 16)

A standard deviation differs by space: that of eps is 1 for any image while x_t is mostly noise, that of x0 is the
image's contrast. So the space is named. The paper's networks give v and it rescales v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from zoo.diffusion.parameterization import X0, Eps, V
from zoo.diffusion.types import Condition, DenoiseFn, Parameterization, Prediction, Step, StepTable
from zoo.guidance import arguments
from zoo.schema.errors import ConfigError

SPACES: Mapping[str, Parameterization] = {"x0": X0(), "eps": Eps(), "v": V()}


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """Scale guided predictions back to the spread of the condition's own, in a space: x0, eps or v.

    It stands after the guidance that it rescales, classifier-free guidance or autoguidance; where those don't guide (a
    scale of 1, outside a limited interval) it changes nothing. A strength of 0 is no rescaling, 1 full rescaling.
    """

    papers = ("2305.08891 Common Diffusion Noise Schedules and Sample Steps are Flawed",)
    fits = "zoo.guidance.arguments:rescale"
    once = "the second would undo the first"
    after_compares = "has nothing to rescale"
    undefined_at_zero: ClassVar[Mapping[str, str]] = {"space": "eps"}
    neutral: ClassVar[Mapping[str, float]] = {"strength": 0.0}

    space: Literal["x0", "eps", "v"]
    strength: float = 0.7

    def __post_init__(self) -> None:
        arguments.rescale(space=self.space, strength=self.strength)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The same denoiser, its guided x0 rescaled."""
        if self.space == "eps" and any(step.alpha == 0.0 for step in table.steps):
            raise ConfigError(
                "rescaling eps says nothing about x0 where alpha = 0; rescale in the space v or x0",
                code="alpha-zero-undefined",
            )
        reading = SPACES[self.space]

        def rescaled(x: Tensor, step: Step) -> Prediction:
            prediction = denoise(x, step)
            if prediction.x0_cond is None:
                return prediction
            alpha, sigma = step.alpha, step.sigma
            guided, cond = (
                reading.target(x0, (x - alpha * x0) / sigma, alpha, sigma) for x0 in (prediction.x0, prediction.x0_cond)
            )
            found = _deviation(guided)
            factor = torch.where(found > 0.0, _deviation(cond) / found, torch.ones_like(found))
            # x0 is affine in F, so it moves by c_out times what F moves by.
            moved = self.strength * (factor - 1.0) * guided
            return prediction._replace(x0=prediction.x0 + reading(alpha, sigma).c_out * moved)

        return rescaled


def _deviation(values: Tensor) -> Tensor:
    """Each sample's standard deviation, (B, 1, ...)."""
    return values.flatten(1).std(dim=1, correction=0).view(-1, *[1] * (values.ndim - 1))
