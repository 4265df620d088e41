"""RePaint: jumps back to noise, so that the painted part fits the known one (Lugmayr et al. 2022).

Where a mask holds a part of x_t, each step fits the rest to a known part that the steps before had not seen. So after
every `jump` steps down x is noised `jump` steps up again, by the forward process itself,

    x_t = (alpha_t / alpha_s) x_s + sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2) z,

and walked down again, each stretch `resamples` times (algorithm 1, with the jumps of appendix B). n steps are then
n + jump * (resamples - 1) * (stretches) network evaluations for a sampler of one a step; the table counts them.

Each stretch is a plan of its own on the same grid, so that any sampler can walk it, multistep or not. The
known part is held by the mask guidance and, as in algorithm 1, noised again after each step (`zoo.guidance.mask`);
without a mask this is sampling that corrects its errors by fresh noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

from zoo.diffusion.types import AfterStep, Callback, DenoiseFn, NoiseSchedule, Sampler, Step, StepNoise, StepTable
from zoo.samplers.ddpm import DDPM
from zoo.samplers.grid import check_length, rows
from zoo.samplers.state import wide
from zoo.schema.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# The draw, in a step's noise, that leads up to where the step begins; 0 and 1 are the sampler's own.
UP = 2


@dataclass(frozen=True, slots=True)
class JumpTable(StepTable):
    """All steps in order, and the stretches that they are walked in; a stretch may begin above the end of the last."""

    stretches: tuple[StepTable, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RePaint:
    """Another sampler with jumps back to noise, for inpainting that fits.

    steps: of one way down; it replaces the steps of `sampler`. jump: steps a jump. resamples: times that each stretch
    is walked, 1 is the sampler alone.
    """

    inpaints = True

    steps: int = 250
    sampler: Sampler = field(default_factory=DDPM)
    jump: int = 10
    resamples: int = 10

    def __post_init__(self) -> None:
        if self.jump < 1 or self.resamples < 1:
            raise ConfigError(
                f"RePaint needs jump and resamples from 1 up, not {self.jump} and {self.resamples}; the paper's are 10",
                code="number-out-of-range",
            )
        if isinstance(self.sampler, RePaint) or not hasattr(self.sampler, "grid"):
            raise ConfigError(
                f"RePaint jumps over the grid of another sampler, and {type(self.sampler).__name__} has none of its "
                "own; take one like ddpm",
                code="grid-missing",
            )

    def plan(
        self, schedule: NoiseSchedule, steps: int | None = None, *, interval: tuple[float, float] = (1.0, 0.0)
    ) -> StepTable:
        """The table of a run: every stretch's rows, one after another."""
        count = self.steps if steps is None else steps
        held: Any = self.sampler
        final: Any = getattr(held, "final", "clean")
        walked = rows(schedule, grid=held.grid, steps=count, interval=interval, final=final)
        nodes = [step.t for step in reversed(walked)]  # cleanest first
        ways: dict[tuple[float, float], StepTable] = {}
        stretches: list[StepTable] = []
        begin = 0
        for high, low in self._ways(len(nodes)):
            check_length(begin)
            ends = nodes[high], interval[1] if low is None else nodes[low]
            if ends not in ways:
                ways[ends] = self.sampler.plan(schedule, count, interval=ends)
            way = ways[ends]
            numbered = tuple(replace(step, index=begin + k) for k, step in enumerate(way.steps))
            stretches.append(replace(way, steps=numbered))
            begin += len(numbered)
        whole = tuple(step for way in stretches for step in way.steps)
        at_most = any(way.at_most for way in stretches)
        return JumpTable(whole, stretches[0].begin, at_most=at_most, stretches=tuple(stretches))

    def _ways(self, nodes: int) -> list[tuple[int, int | None]]:
        """From which node to which, counted from the clean end; None is that end."""
        stops = range(0, nodes - self.jump, self.jump) if self.resamples > 1 else range(0)
        check_length(nodes + len(stops) * (self.resamples - 1) * self.jump)  # with a sampler of one a step
        ways: list[tuple[int, int | None]] = []
        place = nodes - 1
        for stop in reversed(stops):
            ways += [(place, stop), *[(stop + self.jump, stop)] * (self.resamples - 1)]
            place = stop
        return [*ways, (place, None)]

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
        """Walk x from the table's start to its end, stretch by stretch."""
        assert isinstance(table, JumpTable)  # plan made it
        x = wide(x)
        report = None if callback is None else lambda r: callback(r._replace(total=len(table)))
        below: Step | None = None
        for way in table.stretches:
            if below is not None and way.start.t > below.t_next:
                x = _up(x, below, way.start, noise(way.steps[0].index, UP))
            x = self.sampler(denoise, way, x, noise=noise, callback=report, after_step=after_step)
            below = way.steps[-1]
        return x


def _up(x: Tensor, below: Step, above: Step, z: Tensor) -> Tensor:
    """x where `below` led to, noised to where `above` begins."""
    kept = above.alpha / below.alpha_next
    fresh = sqrt(max(0.0, above.sigma**2 - (kept * below.sigma_next) ** 2))
    return kept * x + fresh * z.to(x)
