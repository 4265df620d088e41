"""Euler's method, plain and ancestral (Karras et al. 2022, algorithm 1 without its correction).

With y = x / alpha and s = sigma / alpha the probability-flow ODE is dy/ds = (y - x0) / s = eps; a step is

    y_next = y + (s_next - s) eps,    that is    x_next = alpha_next x0 + sigma_next eps.

This is DDIM, and on the straight path alpha = 1 - t, sigma = t it is Euler's method on dx/dt = eps - x0, so rectified
flow needs no sampler of its own. The ancestral form goes below the next noise level and adds fresh noise:

    s_up = eta s_next sqrt(1 - s_next^2 / s^2),    s_down = sqrt(s_next^2 - s_up^2)
"""

from __future__ import annotations

from dataclasses import dataclass

from zoo.samplers.linear import LinearSampler, Rows, Walk, ancestral, towards
from zoo.schema.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Euler(LinearSampler):
    """Deterministic and first order: the simplest solver, and the one for rectified flow."""

    papers = ("2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",)

    steps: int = 50

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step."""
        for here, there in walk.strides:
            table.add(here, there, towards(table.look(here), there))


@dataclass(frozen=True, kw_only=True)
class EulerAncestral(LinearSampler):
    """Euler's method with fresh noise on every step: DDIM's eta counted as k-diffusion counts it."""

    papers = ("2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",)

    steps: int = 50
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ConfigError(
                f"an ancestral sampler's eta lies in [0, 1], not at {self.eta}; 0 adds no noise",
                code="eta-out-of-range",
            )

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step."""
        for here, there in walk.strides:
            seen = table.look(here)
            down, up = ancestral(here, there, self.eta)
            table.add(here, there, there.alpha * (seen.x0 + down * seen.eps), noise=there.alpha * up)
