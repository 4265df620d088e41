"""Ralston's method: of the second-order Runge-Kutta methods the one with the least bound on its error (Ralston 1962).

With y = x / alpha and s = sigma / alpha the probability-flow ODE is dy/ds = eps (Karras et al. 2022, eq. 4). The
network is asked where a step begins and again two thirds of the way along its slope:

    y' = y + 2/3 (s_next - s) eps(y, s)
    y_next = y + (s_next - s) (1/4 eps(y, s) + 3/4 eps(y', s'))

Two evaluations a step. From alpha = 0 and to sigma = 0 a step has no length in ln(s), and Euler's is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zoo.samplers.linear import LinearSampler, Rows, Walk, along, finite, leaps, level_at, towards


@dataclass(frozen=True, kw_only=True)
class Ralston(LinearSampler):
    """Ralston's second-order method: deterministic, at two evaluations a step."""

    convergence_order: ClassVar[int] = 2  # held by `zoo plugin check`

    steps: int = 20

    def write(self, table: Rows, walk: Walk) -> None:
        """2 steps - 1 evaluations to a clean end."""
        for here, there in walk.strides:
            first = table.look(here)
            if leaps(here, there) or not finite(here, there):
                table.add(here, there, towards(first, there))
                continue
            between = level_at(walk.schedule, here.ratio + 2.0 / 3.0 * (there.ratio - here.ratio))
            table.add(here, between, along(first.x, here, between, first.eps))
            second = table.look(between)
            slope = 0.25 * first.eps + 0.75 * second.eps
            table.add(between, there, along(first.x, here, there, slope))
