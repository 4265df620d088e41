"""Linear multistep methods in sigma / alpha: LMS, and PLMS (PNDM; Liu et al. 2022).

With y = x / alpha and s = sigma / alpha the probability-flow ODE is dy/ds = eps, and steps that use earlier eps
reach a higher order at one evaluation each. LMS integrates the polynomial through the last ones, wherever they lie:

    y_next = y + sum_j eps_j * integral of L_j(s) from s to s_next

PLMS takes Adams and Bashforth's weights for even steps, (55, -59, 37, -9) / 24, whatever the steps (eq. 12), and starts
by one step of Heun's method, so that n steps are n + 1 evaluations. A step from pure noise, or from next to it, is
Euler's, and its eps isn't remembered: s is infinite there, or as good as.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.samplers.linear import NOTHING, LinearSampler, Mix, Rows, Walk, along, leaps, stays, towards
from zoo.schema.errors import ConfigError

_ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True, kw_only=True)
class LMS(LinearSampler):
    """Deterministic, of up to fourth order at one evaluation a step."""

    steps: int = 30
    order: int = 4

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3, 4):
            raise ConfigError(f"LMS has orders 1 to 4, not {self.order}; choose one", code="order-out-of-range")

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step."""
        known: list[tuple[float, Mix]] = []  # (s, eps), newest first
        for here, there in walk.strides:
            seen = table.look(here)
            if leaps(here, there) or stays(here, there):
                table.add(here, there, towards(seen, there))
                continue
            known = [(here.ratio, seen.eps), *known][: self.order]
            weights = _lagrange([s for s, _ in known], there.ratio)
            x_next = (there.alpha / here.alpha) * seen.x
            for weight, (_, eps) in zip(weights, known, strict=True):
                x_next = x_next + there.alpha * weight * eps
            table.add(here, there, x_next)


@dataclass(frozen=True, kw_only=True)
class PLMS(LinearSampler):
    """Deterministic pseudo linear multistep, latent diffusion's and Stable Diffusion's first fast sampler."""

    papers = ("2202.09778 Pseudo Numerical Methods for Diffusion Models on Manifolds",)

    steps: int = 50

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step, and one more for the first."""
        known: list[Mix] = []  # newest first
        for here, there in walk.strides:
            seen = table.look(here)
            if leaps(here, there):
                table.add(here, there, towards(seen, there))
                continue
            known = [seen.eps, *known][:4]
            if len(known) == 1 and there.sigma > 0.0:
                table.add(here, there, towards(seen, there))
                table.add(there, there, along(seen.x, here, there, 0.5 * (seen.eps + table.look(there).eps)))
                continue
            slope = NOTHING
            for weight, eps in zip(_ADAMS[len(known) - 1], known, strict=True):
                slope = slope + weight * eps
            table.add(here, there, along(seen.x, here, there, slope))


def _lagrange(nodes: list[float], end: float) -> list[float]:
    """Each node's weight in the integral, from the first node to `end`, of the polynomial through all."""
    # Measured from the first node in units of the step, so that the powers stay near one.
    scale = end - nodes[0]
    places = [(node - nodes[0]) / scale for node in nodes]
    weights = []
    for j, place in enumerate(places):
        others = [other for k, other in enumerate(places) if k != j]
        basis = np.poly1d(others, r=True) / float(np.prod([place - other for other in others]))
        weights.append(float(scale * np.polyint(basis)(1.0)))
    return weights
