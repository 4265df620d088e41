"""Langevin dynamics: annealed (Song & Ermon 2019), and as a corrector (Song et al. 2021b, algorithm 2).

With the score grad log p(x_t) = (alpha x0 - x) / sigma^2 a Langevin step keeps the distribution of its noise level,

    x <- x + epsilon score + sqrt(2 epsilon) z.

Annealed Langevin takes `repeats` of them at each level, epsilon = rate sigma^2 / 2, and goes down; a clean end is the
last x0 (Jolicoeur-Martineau et al. 2021). Predictor-corrector walks the reverse SDE and corrects every state before it
goes on, with epsilon = 2 (snr |z| / |score|)^2. The norms are each sample's own, not the batch's mean as in the
original, so that a sample doesn't depend on its neighbours. In a corrector's row t_next = t.

Without corrections this is the predictor alone. The reverse SDE (ibid., eq. 6) dx = (f x - g^2 score) dt + g dw has
f = d ln(alpha) / dt and g^2 = d sigma^2 / dt - 2 f sigma^2; Euler and Maruyama's step takes both as they are at t.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from zoo.diffusion.types import NoiseSchedule, Prediction, Step, StepNoise
from zoo.samplers.grid import check_length
from zoo.samplers.linear import Level, LinearSampler, Rows, Walk, towards
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of, within

if TYPE_CHECKING:
    from torch import Tensor

MOST_SNR = 10.0  # of a corrector: its step is as large as the noise at 1
Predictor = Literal["ancestral", "reverse-diffusion", "euler-maruyama"]


@dataclass(frozen=True, kw_only=True)
class AnnealedLangevin(LinearSampler):
    """Many small noisy steps at each of a few noise levels: NCSN's sampler."""

    papers = ("1907.05600 Generative Modeling by Estimating Gradients of the Data Distribution",)

    steps: int = 10
    repeats: int = 100
    rate: float = 0.2

    def __post_init__(self) -> None:
        within(1, inf, {"repeats": self.repeats})
        within(0.0, 4.0, {"rate": self.rate}, "()")

    def write(self, table: Rows, walk: Walk) -> None:
        """steps * repeats evaluations."""
        check_length(len(walk.strides) * self.repeats)
        for here, there in walk.strides:
            if here.alpha == 0.0:  # pure noise already
                table.add(here, there, towards(table.look(here), there))
                continue
            for repeat in range(self.repeats):
                seen, last = table.look(here), repeat == self.repeats - 1
                if last and there.sigma == 0.0:
                    table.add(here, there, there.alpha * seen.x0)
                    continue
                to = there if last else here
                scale = to.alpha / here.alpha
                moved = scale * (seen.x - (0.5 * self.rate * here.sigma) * seen.eps)
                table.add(here, to, moved, noise=scale * here.sigma * sqrt(self.rate))


@dataclass(frozen=True, kw_only=True)
class PredictorCorrector(LinearSampler):
    """Steps of the reverse SDE, each state corrected by Langevin dynamics first.

    predictor: `ancestral` has the right spread however long the step; `reverse-diffusion` is the original's for
    exploding variance and `euler-maruyama` the one for any SDE, and these need short steps.
    """

    papers = ("2011.13456 Score-Based Generative Modeling through Stochastic Differential Equations",)

    steps: int = 500
    corrections: int = 1
    snr: float = 0.16
    predictor: Predictor = "ancestral"

    def __post_init__(self) -> None:
        within(0, inf, {"corrections": self.corrections})
        within(0.0, MOST_SNR, {"snr": self.snr}, "(]", usual=0.16)
        one_of("predictor", self.predictor, get_args(Predictor))

    def write(self, table: Rows, walk: Walk) -> None:
        """steps * (1 + corrections) evaluations."""
        check_length(walk.steps * (1 + self.corrections))
        for here, there in walk.strides:
            if here.alpha == 0.0 and self.predictor != "ancestral":
                raise ConfigError(
                    f"{self.predictor} can't start at alpha = 0; use predictor ancestral", code="alpha-zero-undefined"
                )
            for _ in range(self.corrections):
                table.add(here, here, table.look(here).x, own={"snr": self.snr})
            if self.predictor == "euler-maruyama":
                drift, spread = rates(walk.schedule, here.t)
                a, b, tau = maruyama(here, there, drift=drift, spread=spread, length=here.t - there.t)
            else:
                kept = there.ratio / here.ratio
                a, b = there.sigma / here.sigma * kept, there.alpha * (1.0 - kept * kept)
                spread = there.sigma if self.predictor == "ancestral" else there.alpha * here.ratio
                tau = spread * sqrt(max(0.0, 1.0 - kept * kept)) if there.sigma > 0.0 else 0.0
            seen = table.look(here)
            table.add(here, there, a * seen.x + b * seen.x0, noise=tau)

    def noised(self, x: Tensor, found: Prediction, step: Step, noise: StepNoise) -> Tensor:
        """In a corrector's row Langevin's step from x; in any other x with its noise."""
        if "snr" not in step.own:
            return super().noised(x, found, step, noise)
        z = noise(step.index).to(x.dtype)
        score = (step.alpha * self.estimate(found, step)).sub(x).div_(step.sigma**2)
        epsilon = 2.0 * (step.own["snr"] * norms(z) / norms(score)) ** 2
        return x + epsilon * score + (2.0 * epsilon).sqrt() * z


def norms(x: Tensor) -> Tensor:
    """Each sample's length, (B, 1, ...)."""
    return x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))


def rates(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """(f, g^2) of the forward SDE at t, by differences over the piece of the schedule that a step from t covers."""
    width = min(1e-4, 0.25 * t)
    alpha, sigma = schedule(np.array([t, t - width, t - 2.0 * width]))
    backward = np.array([3.0, -4.0, 1.0]) / (2.0 * width)  # second order
    drift = float(backward @ np.log(alpha))
    return drift, float(backward @ (sigma * sigma)) - 2.0 * drift * float(sigma[0]) ** 2


def maruyama(here: Level, there: Level, *, drift: float, spread: float, length: float) -> tuple[float, float, float]:
    """The weights of (x_t, x0, noise) in a step of Euler and Maruyama's; a step to sigma = 0 takes its mean."""
    pull = spread * length / here.sigma**2  # score = (alpha x0 - x) / sigma^2
    tau = sqrt(spread * length) if there.sigma > 0.0 else 0.0
    return 1.0 - drift * length - pull, pull * here.alpha, tau
