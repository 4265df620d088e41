"""DPM-Solver++ 2S: second order from two evaluations a step (Lu et al. 2022b, algorithm 1 with r = 1/2).

In y = x / alpha, s = sigma / alpha and lambda = -ln s, a step first goes half way in lambda by DDIM, evaluates the
network there, and goes all the way by that estimate D of x0:

    y_next = (s_down / s) y + (1 - s_down / s) D + s_up z

No history is kept between steps. With eta = 0 no noise is drawn, s_down = s_next, and this is the ODE. With
eta = 1 it is k-diffusion's `dpmpp_2s_ancestral`: the solver goes below the next noise level and noise is added back,
s_up = eta s_next sqrt(1 - s_next^2 / s^2).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from zoo.samplers.linear import LinearSampler, Rows, Walk, ancestral, finite, level_at, towards
from zoo.schema.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DPMpp2S(LinearSampler):
    """Deterministic at eta = 0 (the default) and ancestral at eta = 1; second order with two evaluations a step."""

    papers = ("2211.01095 DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",)

    steps: int = 12
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ConfigError(
                f"an ancestral sampler's eta lies in [0, 1], not at {self.eta}; 0 adds no noise",
                code="eta-out-of-range",
            )

    def write(self, table: Rows, walk: Walk) -> None:
        """2 steps - 1 evaluations to a clean end."""
        for here, there in walk.strides:
            seen = table.look(here)
            down, up = ancestral(here, there, self.eta)
            if not finite(here, there) or down <= 0.0:
                table.add(here, there, there.alpha * (seen.x0 + down * seen.eps), noise=there.alpha * up)
                continue
            middle = level_at(walk.schedule, sqrt(here.ratio * down))
            table.add(here, middle, towards(seen, middle))
            x0 = table.look(middle).x0
            kept = down / here.ratio
            x_next = (there.alpha / here.alpha * kept) * seen.x + (there.alpha * (1.0 - kept)) * x0
            table.add(middle, there, x_next, noise=there.alpha * up)
