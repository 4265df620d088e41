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
from typing import TYPE_CHECKING

from zoo.diffusion.types import NoiseSchedule, Prediction, Step, StepNoise, StepTable
from zoo.samplers.ddpm import DDPM
from zoo.samplers.grid import LONGEST, check_length, rows
from zoo.samplers.linear import LinearSampler, TableSampler
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import within

if TYPE_CHECKING:
    from torch import Tensor

# The draw, in a step's noise, that leads up to where the step begins; 0 and 1 are the sampler's own.
UP = 2


@dataclass(frozen=True, kw_only=True)
class RePaint(TableSampler):
    """Another sampler with jumps back to noise, for inpainting that fits.

    steps: of one way down; it replaces the steps of `sampler`. jump: steps a jump. resamples: times that each stretch
    is walked, 1 is the sampler alone.
    """

    papers = ("2201.09865 RePaint: Inpainting using Denoising Diffusion Probabilistic Models",)
    inpaints = True

    steps: int = 250
    sampler: LinearSampler = field(default_factory=DDPM)
    jump: int = 10
    resamples: int = 10

    def __post_init__(self) -> None:
        within(1, LONGEST, {"jump": self.jump, "resamples": self.resamples}, usual=10)
        if not isinstance(self.sampler, LinearSampler):
            raise ConfigError(
                f"RePaint jumps over the grid of another sampler, and {type(self.sampler).__name__} has none of its "
                "own; take one like ddpm",
                code="grid-missing",
            )

    def plan(
        self, schedule: NoiseSchedule, steps: int | None = None, *, interval: tuple[float, float] = (1.0, 0.0)
    ) -> StepTable:
        """The table of a run: every stretch's rows, one after another."""
        held, count = self.sampler, self.steps if steps is None else steps
        walked = rows(schedule, grid=held.grid, steps=count, interval=interval, final=held.final)
        nodes = [step.t for step in reversed(walked)]  # cleanest first
        ways: dict[tuple[float, float], StepTable] = {}
        planned: list[Step] = []
        for high, low in self._ways(len(nodes)):
            check_length(len(planned))
            ends = nodes[high], interval[1] if low is None else nodes[low]
            if ends not in ways:
                ways[ends] = held.plan(schedule, count, interval=ends)
            first, *others = ways[ends].steps
            if planned and ways[ends].start.t > planned[-1].t_next:
                first = _after_jump(first, planned[-1], ways[ends].start)
            planned += [replace(step, index=len(planned) + k) for k, step in enumerate((first, *others))]
        return StepTable(tuple(planned), begin=next(iter(ways.values())).begin)

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

    def raised(self, x: Tensor, step: Step, noise: StepNoise) -> Tensor:
        """Up in noise, if a jump leads to the row; then as the sampler does."""
        if "jump" in step.own:
            x = step.own["kept"] * x + step.own["jump"] * noise(step.index, UP).to(x)
        return self.sampler.raised(x, step, noise)

    def estimate(self, found: Prediction, step: Step) -> Tensor:
        """As the sampler does."""
        return self.sampler.estimate(found, step)

    def noised(self, x: Tensor, found: Prediction, step: Step, noise: StepNoise) -> Tensor:
        """As the sampler does."""
        return self.sampler.noised(x, found, step, noise)


def _after_jump(row: Step, below: Step, above: Step) -> Step:
    """A row whose x comes from where `below` led to, noised to where `above` begins."""
    kept = above.alpha / below.alpha_next
    fresh = sqrt(max(0.0, above.sigma**2 - (kept * below.sigma_next) ** 2))
    return replace(row, own={**row.own, "kept": kept, "jump": fresh})
