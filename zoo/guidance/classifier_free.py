"""Classifier-free guidance (Ho & Salimans 2022, eq. 6): away from the network's unconditional prediction.

    x0 = x0_null + scale * (x0_cond - x0_null)

The paper guides eps. x0 is affine in the network's output with the same coefficients for both rows, and the weights
of the two rows sum to one, so guiding x0, eps or v is the same thing. Scale 1 is the condition alone, 0 unconditional;
a negative prompt is a condition in the place of the null one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.diffusion.denoiser import BoundDenoiser
from zoo.diffusion.types import Condition, DenoiseFn, Prediction, Step, StepTable
from zoo.guidance import arguments
from zoo.schema.errors import ConfigError, UsageError


@dataclass(frozen=True, kw_only=True)
class ClassifierFree:
    """Guide with both conditions in one batch: a step costs one network call on 2 B rows, or B where scale is 1."""

    papers = ("2207.12598 Classifier-Free Diffusion Guidance",)
    fits = "zoo.guidance.arguments:scaled"
    first = "which it would drop, as it asks the network itself"
    once = "the second would drop the first"
    compares = True
    needs = ("null",)
    neutral: ClassVar[Mapping[str, float]] = {"scale": 1.0}
    call_scale = "scale"
    scale_each = True  # a call may give one a sample

    scale: float = 4.0  # a call may put a tensor (B,) in its place, one a sample

    def __post_init__(self) -> None:
        if not isinstance(self.scale, Tensor):
            arguments.scaled(scale=self.scale)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The guided denoiser; it replaces `denoise`, so it stands first in the list of guidance."""
        scale: Any = self.scale
        if not isinstance(scale, Tensor) and scale == 1.0:
            return denoise
        if not isinstance(denoise, BoundDenoiser):
            raise ConfigError(
                "classifier-free guidance evaluates the network itself and would drop what wraps it; "
                "put it first in the list of guidance",
                code="guidance-order-wrong",
            )
        if null is None:
            said = "of its own a sample" if isinstance(scale, Tensor) else f"{scale:g}"
            raise UsageError(
                f"guidance of scale {said} needs a condition for 'nothing asked', which these weights "
                "don't have; use scale 1",
                code="null-condition-missing",
            )
        # Fields that aren't the prompt's (a low-resolution image and its noise level) are the same in both halves.
        null = Condition(concat=cond.concat, level=cond.level, label=cond.label).merge(null)
        if not isinstance(scale, Tensor) and scale == 0.0:
            return denoiser.bind(null, table)
        both = denoiser.bind(Condition.stack([cond, null]), table)

        def guided(x: Tensor, step: Step) -> Prediction:
            found = both(torch.cat([x, x]), step)
            x0_cond, x0_null = found.x0.chunk(2)
            # The variance is the condition's, as in GLIDE.
            fields = {name: getattr(found, name) for name in ("variance_logit", "log_variance", "score")}
            kept = {name: value.chunk(2)[0] for name, value in fields.items() if value is not None}
            weight = scale.to(x0_cond).view(-1, *[1] * (x.ndim - 1)) if isinstance(scale, Tensor) else scale
            return Prediction(x0=torch.lerp(x0_null, x0_cond, weight), x0_cond=x0_cond, **kept)

        return guided
