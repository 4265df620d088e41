"""Inpainting by a mask on x0: where the clean sample is known, it is the estimate.

A sampler here sees x0 only, and its update is elementwise, x <- a x_t + b x0 (+ c earlier x0) (+ d noise). So in the
known region it walks as under a perfect denoiser whose data is that one sample:

- a deterministic solver reads eps = (x_t - alpha_t x0) / sigma_t, finds the very noise that the known part started
  with, and keeps x_t = alpha_t x0 + sigma_t eps at every t (each solver is exact where x0 doesn't change);
- a stochastic one draws from q(x_s | x_t, x0) (Ho et al. 2020, eq. 6), so x_s is distributed as the known part
  noised to s.

Either way the network sees around the hole what it was trained to see, and the run ends in the known x0 exactly,
whatever the sampler. The hole is only as well fitted to its surroundings as the network makes it at each step; RePaint
(Lugmayr et al. 2022) jumps back up in noise to fix that, and is a sampler (`zoo.samplers.repaint`). It noises
the known part again after each step: `Mask.renoised`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.diffusion.types import AfterStep, Condition, DenoiseFn, Prediction, Step, StepNoise, StepTable

# The draw, in a step's noise, of the known part; samplers have the others.
KNOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """Hold the known part of a sample: inpainting.

    x0: (B, C, *spatial) clean samples, in the stage's own space and range. known: broadcastable to x0, in [0, 1] or
    bool; 1 where x0 is kept and 0 where the network paints. Put it last, so that nothing changes the known part.
    """

    pictures = True

    x0: Tensor
    known: Tensor

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The same denoiser, exact in the known part."""

        def masked(x: Tensor, step: Step) -> Prediction:
            prediction = denoise(x, step)
            like = prediction.x0
            known = self.known.to(device=like.device, dtype=like.dtype)
            x0 = torch.lerp(like, self.x0.to(device=like.device, dtype=like.dtype), known)
            # A classifier's gradient doesn't apply to the known part.
            score = prediction.score
            return prediction._replace(x0=x0, score=None if score is None else score * (1.0 - known))

        return masked

    def renoised(self, noise: StepNoise) -> AfterStep:
        """After each step: the known part, noised again to its next level (Lugmayr et al. 2022, algorithm 1)."""

        def after_step(x: Tensor, step: Step) -> Tensor:
            x_known = step.alpha_next * self.x0.to(x)
            if step.sigma_next > 0.0:
                x_known = x_known + step.sigma_next * noise(step.index, KNOWN).to(x)
            return torch.lerp(x, x_known, self.known.to(x))

        return after_step
