"""Guidance that was distilled into a network, which takes its scale as an input (Meng et al. 2023, section 3.1).

Latent consistency models are such networks. The stage listens to a conditioner that gives the scale by name, like
`{name: numbers, names: [guidance], width: null}`; this guidance is where a call's `guidance=` sets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.diffusion.types import Condition, DenoiseFn, StepTable
from zoo.guidance import arguments


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The scale of a network that has guidance in its weights: a step costs one evaluation, of one condition."""

    papers = ("2210.03142 On Distillation of Guided Diffusion Models",)
    fits = "zoo.guidance.arguments:scaled"
    once = "both would set the same number"
    call_scale = "scale"
    scale_each = True

    scale: float = 8.5  # a call may put a tensor (B,) in its place, one a sample

    def __post_init__(self) -> None:
        if not isinstance(self.scale, Tensor):
            arguments.scaled(scale=self.scale)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The denoiser as it is: its condition holds the scale."""
        return denoise
