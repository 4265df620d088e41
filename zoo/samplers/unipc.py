"""UniPC: a multistep predictor whose every state is corrected by the estimate it brought (Zhao et al. 2023).

With lambda = ln(alpha / sigma), h the step's length and D_j = (x0_j - x0) / r_j the differences to earlier estimates at
r_j h, both the predictor and the corrector of a step are (algorithm 5 to 8, data prediction, B(h) = e^-h - 1)

    x_s = (sigma_s / sigma_t) x_t - alpha_s (e^-h - 1) x0 - alpha_s B(h) sum_j rho_j D_j

with rho solving the order's conditions; the corrector has one difference more, the estimate at s itself, at which the
next step evaluates the network anyway. As both begin with the same two terms, a state is corrected by what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log

import numpy as np

from zoo.samplers.linear import NOTHING, Level, LinearSampler, Mix, Rows, Walk, finite
from zoo.schema.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class UniPC(LinearSampler):
    """Deterministic; order 2 or 3 with a corrector that costs no evaluation, good in 5 to 10 steps."""

    papers = ("2302.04867 UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",)

    steps: int = 10
    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ConfigError(
                f"UniPC has orders 1, 2 and 3 here, not {self.order}; choose one", code="order-out-of-range"
            )

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step."""
        known: list[tuple[Level, Mix]] = []  # newest first
        guessed: tuple[int, Mix] | None = None  # the step before: its order, and its differences' part
        for left, (here, there) in zip(range(len(walk.strides), 0, -1), walk.strides, strict=True):
            seen = table.look(here)
            x = seen.x
            if guessed is not None:
                order, predicted = guessed
                x = x + _differences(known[:order], here, (here, seen.x0)) - predicted
            known = [(here, seen.x0), *known][: self.order]
            if not finite(here, there):
                # x still moves by the correction; where sigma = 0 nothing of x is left.
                eps = (1.0 / here.sigma) * x - (here.alpha / here.sigma) * seen.x0
                table.add(here, there, there.alpha * seen.x0 + there.sigma * eps)
                known, guessed = (known, None) if here.alpha > 0.0 else ([], None)
                continue
            # The last steps are too long in lambda for a high order.
            order = min(len(known), left)
            predicted = _differences(known[:order], there, None)
            kept = there.ratio / here.ratio
            x_next = (there.sigma / here.sigma) * x + (there.alpha * (1.0 - kept)) * seen.x0 + predicted
            table.add(here, there, x_next)
            guessed = order, predicted


def _differences(known: list[tuple[Level, Mix]], there: Level, arrived: tuple[Level, Mix] | None) -> Mix:
    """-alpha_s B(h) sum_j rho_j D_j for the step from the newest known estimate to `there`."""
    (here, x0), *earlier = known
    h = log(here.ratio / there.ratio)
    points = [*earlier, arrived] if arrived is not None else earlier
    if not points:
        return NOTHING
    r = np.array([log(here.ratio / level.ratio) / h for level, _ in points])
    if len(points) == 1:
        rho = np.array([0.5])  # as in the original: exact up to h, and a little more stable
    else:
        # phi_1 = e^-h - 1, phi_(k + 1) = phi_k / -h - 1 / k!
        right, phi, factorial = [], expm1(-h) / -h - 1.0, 1.0
        for k in range(1, len(points) + 1):
            right.append(phi * factorial / expm1(-h))
            factorial *= k + 1
            phi = phi / -h - 1.0 / factorial
        rho = np.linalg.solve(np.stack([r**k for k in range(len(points))]), np.array(right))
    total = NOTHING
    for weight, ratio, (_, estimate) in zip(rho, r, points, strict=True):
        total = total + float(weight / ratio) * (estimate - x0)
    return (-there.alpha * expm1(-h)) * total
