"""DPM-Solver: single-step solvers of orders 1 to 3 in ln(alpha / sigma) (Lu et al. 2022a, algorithms 1 and 2).

With lambda = ln(alpha / sigma) and h the length of a step, the probability-flow ODE has the exact solution (eq. 3.4)

    x_s = (alpha_s / alpha_t) x_t - alpha_s * integral of e^-lambda eps(lambda) from lambda_t to lambda_s.

Order 1 takes eps as constant (DDIM), 2 evaluates the network half way as well, 3 at both thirds. No history is kept
between steps. A step to sigma = 0 or from alpha = 0 is infinitely long in lambda and takes order 1; so does one of no
length.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log

from zoo.samplers.linear import LinearSampler, Rows, Walk, along, between, finite, stays, towards
from zoo.schema.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DPMSolver(LinearSampler):
    """Deterministic; `order` evaluations a step give that order of accuracy."""

    papers = ("2206.00927 DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",)

    steps: int = 10
    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ConfigError(
                f"DPM-Solver has orders 1, 2 and 3, not {self.order}; choose one", code="order-out-of-range"
            )

    def write(self, table: Rows, walk: Walk) -> None:
        """`order` evaluations a step, one for a step to sigma = 0."""
        for here, there in walk.strides:
            first = table.look(here)
            if self.order == 1 or not finite(here, there) or stays(here, there):
                table.add(here, there, towards(first, there))
                continue
            h = log(here.ratio / there.ratio)
            if self.order == 2:
                middle = between(walk.schedule, here, there, 0.5)
                table.add(here, middle, towards(first, middle))
                # eq. 3.7 with r = 1/2: eps half way is used for the whole step.
                table.add(middle, there, along(first.x, here, there, table.look(middle).eps))
                continue
            one, two = (between(walk.schedule, here, there, share) for share in (1.0 / 3.0, 2.0 / 3.0))
            table.add(here, one, towards(first, one))
            bend = table.look(one).eps - first.eps
            # Algorithm 2 with r1 = 1/3 and r2 = 2/3.
            weight = two.sigma * 2.0 * (expm1(2.0 * h / 3.0) / (2.0 * h / 3.0) - 1.0)
            table.add(one, two, along(first.x, here, two, first.eps) - weight * bend)
            bend = table.look(two).eps - first.eps
            weight = there.sigma * 1.5 * (expm1(h) / h - 1.0)
            table.add(two, there, along(first.x, here, there, first.eps) - weight * bend)
