"""Time grids: at which t a sampler evaluates the network, and the rows of the table that follow from it.

A grid gives n values of t in (0, 1], descending. On a schedule with T points the first three land on whole indices,
the ones that published samplers use (Lin et al. 2023, table 2):

| grid | indices | who uses it |
|---|---|---|
| `Leading` | k * (T // n) + offset | latent diffusion, Stable Diffusion (offset 1); `ddimN` of OpenAI (offset 0) |
| `Trailing` | round(T - k * T / n) - 1 | starts at t = 1, as a sample does: recommended |
| `Linspace` | round(k * (T - 1) / (n - 1)) | improved DDPM, ADM, DiT |
| `Karras` | evenly in (sigma / alpha)^(1 / rho) | k-diffusion, EDM (Karras et al. 2022, eq. 5) |
| `LogSNR` | evenly in ln(sigma / alpha) | DPM-Solver, NCSN; k-diffusion's exponential |

A step leads to the grid's next node and the last one to t = 0, where alpha = 1, sigma = 0 and x = x0 (`final` "clean").
Stable Diffusion's original sampler ends at the schedule's first point instead (`final` "first": diffusers'
`set_alpha_to_one=False`), which leaves noise of sigma = 0.03 in the latents.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from zoo.diffusion.types import NoiseSchedule, Step
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.ranges import within

Final = Literal["clean", "first"]
LONGEST = 100_000  # network evaluations of a run, which is planned whole before it begins


class Grid(Protocol):
    """(schedule, n) -> n values of t, descending, float64."""

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Leading:
    """Multiples of T // n from the clean end, moved up by `offset` (diffusers' `steps_offset`).

    Where n is so large that the offset would pass the table's end (1000 steps on 1000 points), it gives way: the
    grid is then the points there are. `skip_cleanest` takes n + 1 nodes and leaves the cleanest out, as diffusers'
    multistep solvers do.
    """

    papers = ("2305.08891 Common Diffusion Noise Schedules and Sample Steps are Flawed",)

    offset: int = 1
    skip_cleanest: bool = False

    def __post_init__(self) -> None:
        within(0, math.inf, {"offset": self.offset}, usual=1)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        nodes = steps + self.skip_cleanest
        points = _points(schedule, nodes, "leading", skipped=nodes - steps)
        if self.offset >= points:
            raise ConfigError(
                f"a leading grid's offset is {self.offset} on {points} points; Stable Diffusion's is 1",
                code="offset-beyond-schedule",
            )
        indices = np.arange(nodes)[::-1] * (points // nodes)
        offset = min(self.offset, points - 1 - int(indices[0]))
        return (indices[:steps] + offset + 1.0) / points


@dataclass(frozen=True, kw_only=True)
class Trailing:
    """Even strides from t = 1 down (Lin et al. 2023): the first evaluation is where sampling does start."""

    papers = ("2305.08891 Common Diffusion Noise Schedules and Sample Steps are Flawed",)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        if schedule.T is None:
            return np.arange(steps, 0, -1) / steps
        points = _points(schedule, steps, "trailing")
        return np.round(points - np.arange(steps) * (points / steps)) / points


@dataclass(frozen=True, kw_only=True)
class Linspace:
    """Both ends of the schedule and even strides between; `skip_cleanest` as in `Leading`.

    One step alone would be at the clean end, as in the original code: take `Trailing` for that.
    """

    papers = ("2102.09672 Improved Denoising Diffusion Probabilistic Models",)

    skip_cleanest: bool = False

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        nodes = steps + self.skip_cleanest
        points = _points(schedule, nodes, "linspace", skipped=nodes - steps)
        indices = np.round(np.linspace(0.0, points - 1.0, nodes))[::-1]
        return (indices[:steps] + 1.0) / points


@dataclass(frozen=True, kw_only=True)
class Karras:
    """Nodes between sigma_max and sigma_min (of sigma / alpha), denser at low noise; None: the schedule's own ends.

    The nodes lie between the schedule's points; the denoiser's `time_rounding` says what its network takes there.
    """

    papers = ("2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",)

    rho: float = 7.0
    sigma_min: float | None = None
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        within(0.0, 1e4, {"rho": self.rho}, "(]", usual=7)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        low, high = _range(schedule, self.sigma_min, self.sigma_max, "karras")
        ramp = np.linspace(0.0, 1.0, steps)
        sigmas = (high ** (1 / self.rho) + ramp * (low ** (1 / self.rho) - high ** (1 / self.rho))) ** self.rho
        return schedule.t_from_log_snr(-2.0 * np.log(sigmas))


@dataclass(frozen=True, kw_only=True)
class LogSNR:
    """Evenly in ln(alpha / sigma), from sigma_max to sigma_min as in `Karras`; k-diffusion calls it exponential."""

    papers = ("2206.00927 DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",)

    sigma_min: float | None = None
    sigma_max: float | None = None

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        low, high = _range(schedule, self.sigma_min, self.sigma_max, "log-snr")
        return schedule.t_from_log_snr(-2.0 * np.linspace(np.log(high), np.log(low), steps))


def rows(
    schedule: NoiseSchedule, *, grid: Grid, steps: int, interval: tuple[float, float], final: Final
) -> tuple[Step, ...]:
    """The steps of a run, still without a sampler's coefficients.

    interval (high, low): the nodes with low < t <= high are kept. The last of them leads to the grid's next node,
    where a stage on the interval below (with the same grid) starts.
    """
    if isinstance(steps, bool) or not hasattr(steps, "__index__") or operator.index(steps) < 1:
        raise UsageError(
            f"a sampler takes a whole number of steps from 1 up, not {steps!r}; set steps", code="steps-out-of-range"
        )
    check_length(operator.index(steps))
    if final not in get_args(Final):
        raise ConfigError(
            f"unknown final '{final}'; choose 'clean' (ends at t = 0) or 'first' (the schedule's first)",
            code="choice-unknown",
        )
    high, low = interval
    if not 0.0 <= low < high <= 1.0:
        raise UsageError(
            f"an interval of t is (high, low) with 0 <= low < high <= 1, not ({high}, {low})", code="interval-invalid"
        )

    nodes = np.asarray(grid(schedule, operator.index(steps)), dtype=np.float64)
    if not (np.all(np.diff(nodes) < 0.0) and nodes[0] <= 1.0 + 1e-9 and nodes[-1] > 0.0):
        raise ConfigError(
            f"the grid {grid!r} gave nodes that don't descend within (0, 1]; use fewer steps",
            code="grid-not-descending",
        )
    last = 0.0
    if final == "first":
        if schedule.T is None:
            raise ConfigError(
                "final 'first' needs a schedule with discrete points; use final 'clean'", code="schedule-not-discrete"
            )
        last = min(1.0 / schedule.T, float(nodes[-1]))
    path = np.append(np.minimum(nodes, 1.0), last)

    # Ends given in decimals (0.3) and nodes counted in points (300 / 1000) are the same within rounding.
    kept = np.flatnonzero((path[:-1] > low + 1e-12) & (path[:-1] <= high + 1e-12))
    if not len(kept):
        raise UsageError(
            f"none of the {steps} steps lies in {low:g} < t <= {high:g}; use more steps or a wider interval "
            "(a larger strength)",
            code="steps-too-few",
        )
    alphas, sigmas = schedule(path)
    return tuple(
        Step(
            index=row,
            t=float(path[k]),
            alpha=float(alphas[k]),
            sigma=float(sigmas[k]),
            t_next=float(path[k + 1]),
            alpha_next=float(alphas[k + 1]),
            sigma_next=float(sigmas[k + 1]),
        )
        for row, k in enumerate(kept)
    )


def check_length(evaluations: int) -> None:
    """UsageError for a run whose plan would take all memory."""
    if evaluations > LONGEST:
        raise UsageError(
            f"a run of {evaluations} network evaluations is too long to plan; use at most {LONGEST}",
            code="steps-too-many",
        )


def _points(schedule: NoiseSchedule, nodes: int, grid: str, *, skipped: int = 0) -> int:
    if schedule.T is None:
        raise UsageError(
            f"a {grid} grid counts points, which a continuous schedule has not; use trailing or karras",
            code="schedule-not-discrete",
        )
    if nodes > schedule.T:
        raise UsageError(
            f"a {grid} grid of {nodes} nodes is more than the {schedule.T} points of the schedule; "
            f"use at most {schedule.T - skipped} steps",
            code="steps-too-many",
        )
    return schedule.T


def noise_ratio(schedule: NoiseSchedule, t: float) -> float:
    """sigma / alpha at t; infinite where nothing of the sample is left."""
    alpha, sigma = schedule(t)
    return float(sigma / alpha) if alpha > 0.0 else np.inf


def _range(schedule: NoiseSchedule, lowest: float | None, highest: float | None, grid: str) -> tuple[float, float]:
    name = "Karras" if grid == "karras" else grid
    if lowest is None and schedule.T is None:
        raise UsageError(
            f"a {name} grid on a continuous schedule has no lowest noise; give the grid a sigma_min",
            code="sigma-min-missing",
        )
    noisiest = noise_ratio(schedule, 1.0)
    if highest is None and noisiest == np.inf:
        raise UsageError(
            f"a {name} grid begins at the noisiest level, here infinite (alpha = 0); "
            "give the grid a sigma_max, like 80",
            code="sigma-max-missing",
        )
    low = noise_ratio(schedule, 1.0 / (schedule.T or 1)) if lowest is None else lowest
    high = noisiest if highest is None else highest
    if not 0.0 < low < high < np.inf:
        raise UsageError(
            f"a {name} grid needs 0 < sigma_min < sigma_max, not {low:.4g} and {high:.4g}; fix them",
            code="sigmas-invalid",
        )
    if high > noisiest * (1.0 + 1e-6):
        raise UsageError(
            f"a {name} grid needs sigma_min < sigma_max up to the schedule's {noisiest:.4g}, not {high:.4g}; leave "
            "sigma_max out to take the schedule's own",
            code="sigmas-invalid",
        )
    refuse_below(schedule, low, f"a {name} grid")
    return low, high


def refuse_below(schedule: NoiseSchedule, low: float, grid: str) -> None:
    """UsageError for a noise level below the schedule's: it would be clipped, or the network would take another."""
    # A continuous schedule says by its inverse where it begins, for some at no noise at all.
    first = 1.0 / schedule.T if schedule.T is not None else float(schedule.t_from_log_snr(-2.0 * np.log(low)))
    lowest = noise_ratio(schedule, first)
    if lowest > low * 1.001:
        raise UsageError(
            f"{grid} can't end at sigma / alpha {low:.4g} where the schedule begins at {lowest:.4g}; raise its lowest "
            "noise (sigma_min) to that",
            code="sigmas-invalid",
        )
