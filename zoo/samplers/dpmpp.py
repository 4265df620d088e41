"""DPM-Solver++ 2M: a second-order multistep solver in the log of alpha / sigma (Lu et al. 2022b, algorithm 2).

With lambda = ln(alpha / sigma) the probability-flow ODE has the exact solution (eq. 9)

    x_s = (sigma_s / sigma_t) x_t + sigma_s * integral of e^lambda x0(lambda) from lambda_t to lambda_s,

where x0 alone needs approximating. Taken as constant it gives DDIM; drawn as a line through this estimate and the one
before it gives the second order, at no further network evaluation:

    x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) D,    D = (1 + w) x0 - w x0_before,    w = h / (2 h_before)

The first step has no earlier estimate, and the one to sigma = 0 is infinitely long in lambda: both are first order.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from zoo.samplers.linear import NOTHING, LinearSampler, Rows, Walk, kept_noise


@dataclass(frozen=True, kw_only=True)
class DPMpp2M(LinearSampler):
    """Deterministic; about as good with 20 steps as DDIM with 50."""

    papers = ("2211.01095 DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",)

    steps: int = 20

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step."""
        x0_before, h_before = NOTHING, 0.0
        for here, there in walk.strides:
            seen, kept = table.look(here), kept_noise(here, there)  # e^-h
            h = -log(kept) if kept > 0.0 else 0.0
            w = h / (2.0 * h_before) if h_before > 0.0 else 0.0
            line = (1.0 + w) * seen.x0 - w * x0_before
            table.add(here, there, (there.sigma / here.sigma) * seen.x + (there.alpha * (1.0 - kept)) * line)
            x0_before, h_before = seen.x0, h
