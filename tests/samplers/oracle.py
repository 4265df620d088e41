"""The oracle of zoo.conformance, and what else tests of samplers need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zoo.conformance.mixture import (
    AngleSchedule,
    ExplodingSchedule,
    Mixture,
    OracleNetwork,
    bound_oracle,
    mixture,
    no_noise,
    oracle,
    relative,
    start,
)
from zoo.diffusion.types import Step

__all__ = [
    "AngleSchedule",
    "ExplodingSchedule",
    "GivenGrid",
    "Mixture",
    "OracleNetwork",
    "bound_oracle",
    "given_noise",
    "mixture",
    "no_noise",
    "oracle",
    "record_states",
    "relative",
    "start",
]


@dataclass(frozen=True)
class GivenGrid:
    """Whole indices from outside, in increasing order."""

    indices: tuple[int, ...]

    def __call__(self, schedule, steps):
        assert steps == len(self.indices)
        return (np.array(self.indices[::-1], dtype=np.float64) + 1.0) / schedule.T


def given_noise(rows: Tensor) -> Callable[..., Tensor]:
    """Row k is step k's noise."""
    return lambda step, draw=0: rows[step]


def record_states(states: list[Tensor]):
    """An `after_step` that keeps every state."""

    def after_step(x: Tensor, step: Step) -> Tensor:
        states.append(x.clone())
        return x

    return after_step
