"""The one sampling loop, over rows that are weighted sums of earlier states and estimates; and how to write the rows.

With x_k the state at row k, x0_k the network's estimate there and z fresh noise, a row is

    x_(k+1) = sum_j (a_j x_(k-j) + b_j x0_(k-j)) + tau z

and a sampler is a `write` that computes the weights. A `Mix` is such a sum while it is being planned, so that a
sampler's file reads as its equations do: eps = (x - alpha x0) / sigma is a mix, and so is each expression of it. A
solver that evaluates the network twice a step has two rows for it; in one that evaluates where the state already is
(Heun's second) t_next = t.
Churn (Karras et al. 2022, algorithm 2) raises the noise before the row's evaluation: x <- grow x + churn z.

What a sum can't express is one of the loop's three moves, which a sampler may write anew (`TableSampler`): noise as
large as the network has learned (DDPM) or as the score is (Langevin's corrector), a jump up in noise (RePaint).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import exp, inf, isclose, log, sqrt
from typing import TYPE_CHECKING, NamedTuple

from zoo.diffusion.types import (
    AfterStep,
    Callback,
    DenoiseFn,
    NoiseSchedule,
    Prediction,
    Step,
    StepNoise,
    StepReport,
    StepTable,
)
from zoo.samplers.grid import Final, Grid, Trailing, check_length, rows
from zoo.samplers.state import guided_x0, state_factors, wide

if TYPE_CHECKING:
    from torch import Tensor


class Level(NamedTuple):
    """A place on a schedule."""

    t: float
    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """sigma / alpha, the noise of x / alpha; infinite at pure noise."""
        return self.sigma / self.alpha if self.alpha > 0.0 else inf


def ends(step: Step) -> tuple[Level, Level]:
    """Where a step begins and where it leads."""
    return Level(step.t, step.alpha, step.sigma), Level(step.t_next, step.alpha_next, step.sigma_next)


class Walk(NamedTuple):
    """A requested run: the steps on its grid, before a solver has made rows of them."""

    schedule: NoiseSchedule
    steps: int  # of a whole run; an interval may have kept fewer strides
    strides: tuple[tuple[Level, Level], ...]  # (here, there), from noise to data


def finite(here: Level, there: Level) -> bool:
    """Whether the step has a length in ln(alpha / sigma); from alpha = 0 or to sigma = 0 only first order is left."""
    return here.alpha > 0.0 and there.sigma > 0.0


def stays(here: Level, there: Level) -> bool:
    """Whether the step has no length: `final` "first" on a grid that ends at the first point evaluates there once more.

    Levels count and not t, which a grid's inverse gives to one ulp.
    """
    return isclose(here.ratio, there.ratio, rel_tol=1e-12)


def leaps(here: Level, there: Level) -> bool:
    """Whether a step leaves pure noise, or what is next to it, at one stride.

    Cosine's capped betas begin at sigma / alpha = 2e4, whence the first step of 30 leads to 19. What solvers in
    sigma / alpha add to Euler's step is multiplied by its length, and over such a length it is meaningless.
    """
    return here.alpha == 0.0 or here.ratio > max(100.0, 10.0 * there.ratio)


def kept_noise(here: Level, there: Level) -> float:
    """The share of the noise that a step keeps, there.ratio / here.ratio: 1 where nothing is denoised, 0 where all."""
    return (here.alpha * there.sigma) / (there.alpha * here.sigma)


def level_at(schedule: NoiseSchedule, ratio: float) -> Level:
    """Where the schedule has this sigma / alpha, or comes nearest to it."""
    t = float(schedule.t_from_log_snr(-2.0 * log(ratio)))
    alpha, sigma = schedule(t)
    return Level(t, float(alpha), float(sigma))


def between(schedule: NoiseSchedule, here: Level, there: Level, share: float) -> Level:
    """The level at a fraction of the way in ln(alpha / sigma)."""
    return level_at(schedule, exp((1.0 - share) * log(here.ratio) + share * log(there.ratio)))


@dataclass(frozen=True)
class Mix:
    """A weighted sum; parts: ("x" or "x0", row) -> weight."""

    parts: Mapping[tuple[str, int], float]

    def __add__(self, other: Mix) -> Mix:
        keys = self.parts.keys() | other.parts.keys()
        return Mix({k: self.parts.get(k, 0.0) + other.parts.get(k, 0.0) for k in keys})

    def __rmul__(self, factor: float) -> Mix:
        return Mix({k: factor * weight for k, weight in self.parts.items()})

    def __sub__(self, other: Mix) -> Mix:
        return self + -1.0 * other


NOTHING = Mix({})


class Seen(NamedTuple):
    """What a row will have seen, as mixes."""

    x: Mix
    x0: Mix
    eps: Mix


class Rows:
    """A table being written, row by row."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._begin: Level | None = None

    def look(self, here: Level) -> Seen:
        """What the row to be added next sees, at this level."""
        row = len(self.steps)
        x, x0 = Mix({("x", row): 1.0}), Mix({("x0", row): 1.0})
        return Seen(x, x0, (1.0 / here.sigma) * x - (here.alpha / here.sigma) * x0)

    def add(
        self,
        here: Level,
        there: Level,
        x_next: Mix,
        *,
        noise: float = 0.0,
        churn: float = 0.0,
        before: Level | None = None,
        own: Mapping[str, float] | None = None,
    ) -> None:
        """Evaluate the network at `here` and step to `there`; with churn the state comes from `before`."""
        row = len(self.steps)
        check_length(row + 1)
        parts = {key: weight for key, weight in x_next.parts.items() if weight != 0.0}
        lags = max((row - k for _, k in parts), default=0)
        weights = [(parts.get(("x", row - j), 0.0), parts.get(("x0", row - j), 0.0)) for j in range(lags + 1)]
        grow = 1.0 if before is None else here.alpha / before.alpha
        if row == 0:
            self._begin = before
        coefficients = (*weights[0], noise, grow, churn, *(w for pair in weights[1:] for w in pair))
        self.steps.append(Step(row, *here, *there, coefficients, own or {}))

    def table(self) -> StepTable:
        """The rows as a table."""
        first, begin = self.steps[0], self._begin
        if begin is None:
            return StepTable(tuple(self.steps))
        return StepTable(tuple(self.steps), begin=Step(0, *begin, first.t, first.alpha, first.sigma))


def towards(seen: Seen, there: Level) -> Mix:
    """alpha x0 + sigma eps at the next level: DDIM's step, and Euler's in x / alpha."""
    return there.alpha * seen.x0 + there.sigma * seen.eps


def along(x: Mix, here: Level, there: Level, slope: Mix) -> Mix:
    """From x along a slope d(x / alpha) / d(sigma / alpha), which for the exact solution is eps."""
    return (there.alpha / here.alpha) * x + there.alpha * (there.ratio - here.ratio) * slope


def ancestral(here: Level, there: Level, eta: float) -> tuple[float, float]:
    """(down, up) in sigma / alpha: as far as the ODE goes, and the fresh noise that leads back to `there`."""
    kept = there.ratio / here.ratio
    up = eta * there.ratio * sqrt(max(0.0, 1.0 - kept * kept))
    return sqrt(max(0.0, there.ratio**2 - up**2)), up


class TableSampler:
    """The loop. Coefficients are (a_0, b_0, tau, grow, churn, a_1, b_1, ...)."""

    def raised(self, x: Tensor, step: Step, noise: StepNoise) -> Tensor:
        """x where the row evaluates the network: with churn, if it has any."""
        grow, churn = step.coefficients[3:5]
        return x.mul(grow).add_(noise(step.index, 1), alpha=churn) if churn else x

    def estimate(self, found: Prediction, step: Step) -> Tensor:
        """The x0 that the row's sum takes."""
        return guided_x0(found, step)

    def noised(self, x: Tensor, found: Prediction, step: Step, noise: StepNoise) -> Tensor:
        """The row's sum x, which may be changed in place, with its fresh noise."""
        tau = step.coefficients[2]
        return x.add_(noise(step.index), alpha=tau) if tau else x

    def __call__(
        self,
        denoise: DenoiseFn,
        table: StepTable,
        x: Tensor,
        *,
        noise: StepNoise,
        callback: Callback | None = None,
        after_step: AfterStep | None = None,
    ) -> Tensor:
        """Walk x from the table's start to its end."""
        x = wide(x)
        # No row looks further back than the longest one.
        longest = max(len(step.coefficients) - 5 for step in table.steps) // 2
        seen: deque[tuple[Tensor, Tensor]] = deque(maxlen=longest)
        for step, a in zip(table.steps, state_factors(table, x), strict=True):
            x = self.raised(x, step, noise)
            found = denoise(x, step)
            x0 = self.estimate(found, step)
            x_next = x.mul(a).add_(x0, alpha=step.coefficients[1])
            # The weights lie as the tensors do: x and x0 of the row before, of the one before that, ...
            for weight, tensor in zip(step.coefficients[5:], chain.from_iterable(seen), strict=False):
                if weight:
                    x_next.add_(tensor, alpha=weight)
            seen.appendleft((x, x0))
            x_next = self.noised(x_next, found, step, noise)
            if callback is not None:
                callback(StepReport(index=step.index, total=len(table), x_t=x, x0=x0))
            x = x_next if after_step is None else after_step(x_next, step)
        return x


@dataclass(frozen=True, kw_only=True)
class LinearSampler(TableSampler, ABC):
    """A sampler on a grid, whose rows its `write` adds."""

    steps: int = 30
    grid: Grid = field(default_factory=Trailing)
    final: Final = "clean"

    @abstractmethod
    def write(self, table: Rows, walk: Walk) -> None:
        """Add the rows of a run."""

    def plan(
        self, schedule: NoiseSchedule, steps: int | None = None, *, interval: tuple[float, float] = (1.0, 0.0)
    ) -> StepTable:
        """The table of a run."""
        count = self.steps if steps is None else steps
        walked = rows(schedule, grid=self.grid, steps=count, interval=interval, final=self.final)
        table = Rows()
        self.write(table, Walk(schedule, count, tuple(ends(step) for step in walked)))
        return table.table()
