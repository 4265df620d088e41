"""DPM-Solver++ for the reverse SDE, multistep and single step (Lu et al. 2022b, appendix A; k-diffusion).

In y = x / alpha, s = sigma / alpha and lambda = -ln s, a step of length h under noise of strength eta is

    y_next = (s_next / s) e^(-eta h) y + (1 - e^(-(1 + eta) h)) D + s_next sqrt(1 - e^(-2 eta h)) z

where D is an estimate of x0 over the step: this x0 for first order. 2M draws a line through this one and the one
before; SDE evaluates the network once more, half way in lambda, after an ancestral step. eta = 0 is the ODE. Both
noises of a single-step step are drawn independently, not from one Brownian path.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log, sqrt
from typing import Literal

from zoo.samplers.linear import LinearSampler, Mix, Rows, Walk, ancestral, between, finite, stays
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of


@dataclass(frozen=True, kw_only=True)
class DPMpp2MSDE(LinearSampler):
    """Stochastic, second order in its drift, at one evaluation a step."""

    papers = ("2211.01095 DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",)

    steps: int = 25
    eta: float = 1.0
    solver: Literal["midpoint", "heun"] = "midpoint"

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 10.0:
            raise ConfigError(
                f"DPM-Solver++'s eta is {self.eta}; give a number from 0, the ODE, over 1, the SDE, to 10",
                code="eta-out-of-range",
            )
        one_of("solver", self.solver, ("midpoint", "heun"))

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step."""
        x0_before: Mix | None = None
        h_before = 0.0
        for here, there in walk.strides:
            seen = table.look(here)
            kept = there.ratio / here.ratio  # e^-h
            damped = kept**self.eta
            x_next = (there.sigma / here.sigma * damped) * seen.x + (there.alpha * (1.0 - kept * damped)) * seen.x0
            if finite(here, there) and not stays(here, there):
                h = -log(kept)
                if x0_before is not None:
                    long = h * (1.0 + self.eta)
                    weight = -0.5 * expm1(-long) if self.solver == "midpoint" else 1.0 + expm1(-long) / long
                    x_next = x_next + (there.alpha * weight * h / h_before) * (seen.x0 - x0_before)
                x0_before, h_before = seen.x0, h
            table.add(here, there, x_next, noise=there.sigma * sqrt(max(0.0, 1.0 - damped * damped)))


@dataclass(frozen=True, kw_only=True)
class DPMppSDE(LinearSampler):
    """Stochastic, with a second evaluation half way through each step."""

    papers = ("2211.01095 DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",)

    steps: int = 15
    eta: float = 1.0

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
            if not finite(here, there):
                table.add(here, there, there.alpha * (seen.x0 + down * seen.eps), noise=there.alpha * up)
                continue
            middle = between(walk.schedule, here, there, 0.5)
            half_down, half_up = ancestral(here, middle, self.eta)
            half = middle.alpha * (seen.x0 + half_down * seen.eps)
            table.add(here, middle, half, noise=middle.alpha * half_up)
            # The line through both estimates, taken half way, is the later one.
            x0 = table.look(middle).x0
            kept = down / here.ratio
            x_next = (there.alpha / here.alpha * kept) * seen.x + (there.alpha * (1.0 - kept)) * x0
            table.add(middle, there, x_next, noise=there.alpha * up)
