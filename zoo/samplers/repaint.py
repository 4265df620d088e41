"""RePaint's walk: ancestral sampling that goes back up and down again (Lugmayr et al. 2022, algorithm 1, appendix B).

With a mask (zoo.guidance.mask) each step paints the hole once; what it painted is then noised again by `jump` steps
and painted anew, `resamples` times in all, so that hole and surroundings grow to fit each other. A jump from level r
back up to t is the forward process,

    x_t = (alpha_t / alpha_r) x_r + sqrt(sigma_t^2 - (alpha_t / alpha_r)^2 sigma_r^2) z,

and costs no evaluation of the network: it is said in the row it leads to, as churn is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

from zoo.errors import ConfigError
from zoo.samplers.grid import Final, Grid, Trailing, rows
from zoo.samplers.linear import Level, LinearSampler, Rows, ancestral, ends
from zoo.types import NoiseSchedule, StepTable


@dataclass(frozen=True, kw_only=True)
class RePaint(LinearSampler):
    """For inpainting: ancestral sampling that repeatedly goes back some steps and paints them anew.

    steps: nodes of the grid; about `resamples` times as many evaluations.
    """

    steps: int = 250
    jump: int = 10
    resamples: int = 10
    grid: Grid = field(default_factory=Trailing)
    final: Final = "clean"

    def __post_init__(self) -> None:
        if self.jump < 1 or self.resamples < 1:
            raise ConfigError(
                f"RePaint needs a jump and resamples from 1 up, not {self.jump} and {self.resamples}; the paper's are "
                "10 and 10"
            )

    def plan(
        self, schedule: NoiseSchedule, steps: int | None = None, *, interval: tuple[float, float] = (1.0, 0.0)
    ) -> StepTable:
        """The table of a run; each stretch of `jump` nodes is walked `resamples` times."""
        count = self.steps if steps is None else steps
        path = rows(schedule, grid=self.grid, steps=count, interval=interval, final=self.final)
        # Nodes are counted from the clean end; after which of them to go back, and how often still.
        left = dict.fromkeys(range(0, len(path) - self.jump, self.jump), self.resamples - 1)
        table = Rows()
        node, before, churn = len(path), None, 0.0
        while node > 0:
            node -= 1
            here, there = ends(path[len(path) - 1 - node])
            if before is not None:
                churn = _forward(before, here)
            seen = table.look(here)
            down, up = ancestral(here, there, 1.0)
            x_next = there.alpha * (seen.x0 + down * seen.eps)
            table.add(here, there, x_next, noise=there.alpha * up, churn=churn, before=before)
            before, churn = None, 0.0
            if left.get(node, 0) > 0:
                left[node] -= 1
                before = there
                node += self.jump
        return table.table()


def _forward(low: Level, high: Level) -> float:
    """The deviation of the noise that leads from a level up to a noisier one."""
    kept = high.alpha / low.alpha * low.sigma
    return sqrt(max(0.0, high.sigma**2 - kept**2))
