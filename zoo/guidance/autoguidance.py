"""Autoguidance (Karras et al. 2024, eq. 3): away from a worse version of the network under the same condition.

    x0 = x0_weak + scale * (x0_strong - x0_weak)

The weaker network (smaller, or trained for a shorter time) errs where the stronger one does, but more;
extrapolating from it through the stronger one reduces errors. Unlike classifier-free guidance that costs no variety,
and needs no null condition. Over a prediction that is guided already, it adds its own direction,
(scale - 1) * (x0_strong - x0_weak), with the strong network's x0 as it was before guidance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.types import Condition, DenoiseFn, Prediction, Step, StepTable
from zoo.guidance import arguments
from zoo.schema.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Autoguidance:
    """Guide away from a weaker network, at the cost of one call of it a step; scale 1 is no guidance.

    denoiser: the weaker one, with its own parameterization and time input, under the same schedule; a config names it
    by its weights.
    """

    papers = ("2406.02507 Guiding a Diffusion Model with a Bad Version of Itself",)
    fits = "zoo.guidance.arguments:scaled"
    compares = True

    denoiser: Denoiser
    scale: float = 2.0

    def __post_init__(self) -> None:
        arguments.scaled(scale=self.scale)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The guided denoiser."""
        if self.scale == 1.0:
            return denoise
        if self.denoiser.schedule != denoiser.schedule:
            raise ConfigError(
                f"the weaker network of autoguidance was trained under {self.denoiser.schedule} and the one it guides "
                f"under {denoiser.schedule}; take one trained under the same schedule",
                code="schedule-unfit",
            )
        weaker = self.denoiser.bind(cond, table)

        def guided(x: Tensor, step: Step) -> Prediction:
            prediction = denoise(x, step)
            strong = prediction.x0 if prediction.x0_cond is None else prediction.x0_cond
            x0 = prediction.x0 + (self.scale - 1.0) * (strong - weaker(x, step).x0)
            return prediction._replace(x0=x0, x0_cond=strong)

        return guided
