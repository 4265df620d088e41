"""Multistep sampling of consistency models (Song et al. 2023, algorithm 1; of latents: Luo et al. 2023, algorithm 3).

Their network gives the end of the path from x_t, and each step noises that end to the next level afresh:

    f = c_skip x_t + c_out x0,      x_next = alpha_next f + sigma_next z

with c_skip = d^2 / (s^2 + d^2), c_out = s / sqrt(s^2 + d^2), d = 0.5 and s = 10 i, i the schedule's index: the boundary
condition of the latent ones, where f(x, 0) = x. The noise of a step is all fresh, so a network that gives the mean
E[x0 | x_t] instead of the end draws too smooth samples with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from zoo.samplers.linear import LinearSampler, Rows, Walk

SIGMA_DATA = 0.5
TIME_SCALE = 10.0  # diffusers' timestep_scaling


@dataclass(frozen=True, kw_only=True)
class Consistency(LinearSampler):
    """A latent consistency model's sampler: to the end of the path and back to the next noise level, a step each."""

    papers = (
        "2303.01469 Consistency Models",
        "2310.04378 Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference",
    )
    ends_paths = True  # it is right for networks that give the path's end, not the mean

    steps: int = 4

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step, and fresh noise on all but the last."""
        for here, there in walk.strides:
            s = TIME_SCALE * max((walk.schedule.T or 1000) * here.t - 1.0, 0.0)
            seen, square = table.look(here), s * s + SIGMA_DATA**2
            end = (s / sqrt(square)) * seen.x0 + (SIGMA_DATA**2 / square) * seen.x
            table.add(here, there, there.alpha * end, noise=there.sigma)
