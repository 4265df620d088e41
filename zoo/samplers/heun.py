"""Heun's method, deterministic and with churn (Karras et al. 2022, algorithms 1 and 2).

With y = x / alpha and s = sigma / alpha the probability-flow ODE is dy/ds = eps. Euler's step leads to a first guess,
the network is evaluated again there, and the step is retaken along the mean of both slopes:

    y_next = y + (s_next - s) (eps + eps') / 2

Two evaluations a step and second order; a step to sigma = 0 (or from alpha = 0) keeps the first guess, so that n steps
are 2 n - 1 evaluations. Churn raises the noise of a step's state before it is taken, from s to (1 + gamma) s with

    gamma = min(S_churn / n, sqrt(2) - 1) where S_min <= s <= S_max,    z ~ N(0, S_noise^2 I),

which lets fresh noise correct earlier errors. It never goes above the schedule's own noisiest point. k-diffusion churns
Euler's method too; so does `solver: euler` here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt
from typing import Literal, get_args

from zoo.samplers.linear import Level, LinearSampler, Rows, Walk, along, finite, leaps, level_at, towards
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of, within

Solver = Literal["heun", "euler"]


@dataclass(frozen=True, kw_only=True)
class Heun(LinearSampler):
    """Deterministic and second order, at two evaluations a step."""

    papers = ("2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",)

    steps: int = 18

    def write(self, table: Rows, walk: Walk) -> None:
        """2 steps - 1 evaluations to a clean end."""
        for here, there in walk.strides:
            _step(table, here, there)


@dataclass(frozen=True, kw_only=True)
class EDM(LinearSampler):
    """EDM's stochastic Heun: fresh noise is churned in before steps between s_min and s_max.

    s_min and s_max are of sigma / alpha, s_max None is no limit. EDM's own grid is `karras` from 0.002 to 80. solver:
    `heun` evaluates the network twice a step, `euler` once.
    """

    papers = ("2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",)

    steps: int = 18
    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float | None = 50.0
    s_noise: float = 1.003
    solver: Solver = "heun"

    def __post_init__(self) -> None:
        within(0.0, 1e6, {"s_churn": self.s_churn, "s_min": self.s_min, "s_max": self.s_max})
        within(0.0, 10.0, {"s_noise": self.s_noise})
        if self.s_max is not None and self.s_max < self.s_min:
            raise ConfigError(
                f"churn needs s_min <= s_max, not {self.s_min} and {self.s_max}; mend them", code="sigmas-invalid"
            )
        one_of("solver", self.solver, get_args(Solver))

    def write(self, table: Rows, walk: Walk) -> None:
        """2 steps - 1 evaluations to a clean end, one a step with Euler's method."""
        gamma = min(self.s_churn / walk.steps, sqrt(2.0) - 1.0)
        noisiest = level_at(walk.schedule, exp(300.0)).ratio
        for here, there in walk.strides:
            high = noisiest if self.s_max is None else self.s_max
            raised = min(here.ratio * (1.0 + gamma), noisiest)
            if here.alpha > 0.0 and self.s_min <= here.ratio <= high and raised > here.ratio:
                churned = level_at(walk.schedule, raised)
                fresh = churned.alpha * self.s_noise * sqrt(max(0.0, churned.ratio**2 - here.ratio**2))
                _step(table, churned, there, churn=fresh, before=here, solver=self.solver)
            else:
                _step(table, here, there, solver=self.solver)


def _step(
    table: Rows, here: Level, there: Level, *, churn: float = 0.0, before: Level | None = None, solver: Solver = "heun"
) -> None:
    first = table.look(here)
    table.add(here, there, towards(first, there), churn=churn, before=before)
    if solver == "heun" and finite(here, there) and not leaps(here, there):
        second = table.look(there)
        table.add(there, there, along(first.x, here, there, 0.5 * (first.eps + second.eps)))
