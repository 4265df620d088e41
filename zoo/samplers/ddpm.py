"""DDPM: ancestral sampling (Ho et al. 2020, algorithm 2), on any grid (Nichol & Dhariwal 2021, section 4).

Each step draws from q(x_s | x_t, x0) with the network's x0 for the true one (eq. 6 and 7):

    mean = a x_t + b x0,    a = (alpha_t / alpha_s) sigma_s^2 / sigma_t^2,    b = alpha_s beta / sigma_t^2
    beta = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2,    small variance = beta sigma_s^2 / sigma_t^2

The true posterior has the small variance where the data is one point, beta where it is white noise (section 3.2). A
network may have learned where between, logarithmically (Nichol & Dhariwal 2021, eq. 15), or the log-variance itself,
which it was trained on for neighbouring timesteps; then that is used, on any grid, as OpenAI's code does. A
classifier's gradient moves the mean by variance * grad log p(y | x_t) (Dhariwal & Nichol 2021, algorithm 1).
No noise follows a step to sigma = 0: it gives x0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log, sqrt
from typing import TYPE_CHECKING, Literal, get_args

from zoo.diffusion.types import AfterStep, Callback, DenoiseFn, NoiseSchedule, Step, StepNoise, StepReport, StepTable
from zoo.samplers.grid import Final, Grid, Trailing, rows
from zoo.samplers.state import state_factors, wide
from zoo.schema.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Variance = Literal["fixed_small", "fixed_large"]

# Log of a variance of 0; log(0) can't be interpolated.
_NEVER = -46.0


@dataclass(frozen=True, kw_only=True)
class DDPM:
    """Ancestral sampling; `variance` says which fixed one to take where the network has learned none."""

    steps: int = 1000
    variance: Variance = "fixed_small"
    grid: Grid = field(default_factory=Trailing)
    final: Final = "clean"

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise ConfigError(
                f"unknown variance '{self.variance}'; choose fixed_small or fixed_large", code="choice-unknown"
            )

    def plan(
        self, schedule: NoiseSchedule, steps: int | None = None, *, interval: tuple[float, float] = (1.0, 0.0)
    ) -> StepTable:
        """The table of a run; coefficients are (a, b, fixed variance, log small variance, log beta)."""
        count = self.steps if steps is None else steps
        walked = rows(schedule, grid=self.grid, steps=count, interval=interval, final=self.final)
        planned: list[Step] = []
        small_before: float | None = None
        for step in walked:
            kept = (step.alpha * step.sigma_next) / (step.alpha_next * step.sigma)
            fresh = max(0.0, 1.0 - kept * kept)
            beta, small = step.sigma**2 * fresh, step.sigma_next**2 * fresh
            a = (step.alpha / step.alpha_next) * (step.sigma_next / step.sigma) ** 2
            # The last step's small variance is 0; where a learned range needs its log, or a classifier a variance to
            # move by, it is the one of the step before, as in OpenAI's code.
            floor = small if small > 0.0 or small_before is None else small_before
            large = beta if small > 0.0 or small_before is None else small_before
            fixed = small if self.variance == "fixed_small" else large
            logs = tuple(log(v) if v > 0.0 else _NEVER for v in (floor, beta))
            planned.append(replace(step, coefficients=(a, step.alpha_next * fresh, fixed, *logs)))
            small_before = small
        return StepTable(tuple(planned))

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
        """Walk x from the table's start to its end, with noise on every step but one to sigma = 0."""
        x = wide(x)
        for step, a in zip(table.steps, state_factors(table, x), strict=True):
            _, b, fixed, log_small, log_beta = step.coefficients
            found = denoise(x, step)
            x0, logit, score, learned = found.x0, found.variance_logit, found.score, found.log_variance
            x_next = x.mul(a).add_(x0, alpha=b)
            noisy = step.sigma_next > 0.0 and step.t_next < step.t
            if logit is None and learned is None:
                if score is not None:
                    x_next.add_(score, alpha=fixed)
                if noisy:
                    x_next.add_(noise(step.index), alpha=sqrt(fixed))
            else:
                if logit is None:
                    assert learned is not None
                    log_variance = learned.clone()  # halved in place below
                else:  # in [-1, 1], it goes from the small variance to beta
                    log_variance = logit.mul(0.5 * (log_beta - log_small)).add_(0.5 * (log_beta + log_small))
                if score is not None:
                    x_next.add_(log_variance.exp() * score)
                if noisy:
                    x_next.add_(log_variance.mul_(0.5).exp_() * noise(step.index))
            if callback is not None:
                callback(StepReport(index=step.index, total=len(table), x_t=x, x0=x0))
            x = x_next if after_step is None else after_step(x_next, step)
        return x
