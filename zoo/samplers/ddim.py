"""DDIM: denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16).

Estimate the noise in x_t, then compose x at the next, lower noise level from both, with fresh noise for a part:

    eps = (x_t - alpha_t x0) / sigma_t
    x_s = alpha_s x0 + sqrt(sigma_s^2 - tau^2) eps + tau z,      z ~ N(0, I)
    tau = eta * (sigma_s / sigma_t) * sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2)

eta = 0 draws no noise and is a first-order solver of the probability-flow ODE; eta = 1 is DDPM with its small variance.
Written out, a step is x_s = a x_t + b x0 + tau z.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING

from zoo.diffusion.types import AfterStep, Callback, DenoiseFn, NoiseSchedule, Step, StepNoise, StepTable
from zoo.samplers.grid import Final, Grid, Trailing, rows
from zoo.samplers.state import plain_loop
from zoo.schema.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DDIM:
    """Deterministic at eta = 0 (the default), as noisy as DDPM at eta = 1."""

    steps: int = 30
    eta: float = 0.0
    grid: Grid = field(default_factory=Trailing)
    final: Final = "clean"

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ConfigError(
                f"DDIM's eta lies in [0, 1], not at {self.eta}; 0 is deterministic, 1 is DDPM", code="eta-out-of-range"
            )

    def plan(
        self, schedule: NoiseSchedule, steps: int | None = None, *, interval: tuple[float, float] = (1.0, 0.0)
    ) -> StepTable:
        """The table of a run; coefficients are (a, b, tau)."""
        count = self.steps if steps is None else steps
        walked = rows(schedule, grid=self.grid, steps=count, interval=interval, final=self.final)
        return StepTable(tuple(replace(step, coefficients=self._coefficients(step)) for step in walked))

    def _coefficients(self, step: Step) -> tuple[float, float, float]:
        # (alpha_t sigma_s) / (alpha_s sigma_t): 1 where nothing is denoised, 0 where all is.
        kept = (step.alpha * step.sigma_next) / (step.alpha_next * step.sigma)
        tau = self.eta * step.sigma_next * sqrt(max(0.0, 1.0 - kept * kept))  # eq. 16
        direction = sqrt(max(0.0, step.sigma_next**2 - tau**2))
        a = direction / step.sigma
        return a, step.alpha_next - a * step.alpha, tau  # eq. 12

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
        return plain_loop(denoise, table, x, noise=noise, callback=callback, after_step=after_step)
