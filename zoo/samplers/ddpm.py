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

from dataclasses import dataclass
from math import log, sqrt
from typing import TYPE_CHECKING, Literal, get_args

from zoo.diffusion.types import Prediction, Step, StepNoise
from zoo.samplers.linear import LinearSampler, Rows, Walk, kept_noise
from zoo.schema.ranges import one_of

if TYPE_CHECKING:
    from torch import Tensor

Variance = Literal["fixed_small", "fixed_large"]

# Log of a variance of 0; log(0) can't be interpolated.
_NEVER = -46.0


@dataclass(frozen=True, kw_only=True)
class DDPM(LinearSampler):
    """Ancestral sampling; `variance` says which fixed one to take where the network has learned none."""

    papers = ("2006.11239 Denoising Diffusion Probabilistic Models",)

    steps: int = 1000
    variance: Variance = "fixed_small"

    def __post_init__(self) -> None:
        one_of("variance", self.variance, get_args(Variance))

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step, with the variances that it may have."""
        small_before = 0.0
        for here, there in walk.strides:
            seen, kept = table.look(here), kept_noise(here, there)
            fresh = max(0.0, 1.0 - kept * kept)
            beta, small = here.sigma**2 * fresh, there.sigma**2 * fresh
            # The last step's small variance is 0; where a learned range needs its log, or a classifier a variance to
            # move by, it is the one of the step before, as in OpenAI's code.
            least, large = (small, beta) if small > 0.0 or not table.steps else (small_before, small_before)
            fixed = small if self.variance == "fixed_small" else large
            noisy = there.sigma > 0.0 and there.t < here.t
            a = (here.alpha / there.alpha) * (there.sigma / here.sigma) ** 2
            table.add(
                here, there, a * seen.x + (there.alpha * fresh) * seen.x0, noise=sqrt(fixed) if noisy else 0.0,
                own={"variance": fixed, "log_small": _log(least), "log_beta": _log(beta), "noisy": noisy},
            )  # fmt: skip
            small_before = small

    def estimate(self, found: Prediction, step: Step) -> Tensor:
        """x0 as it is: a classifier's gradient moves the mean."""
        return found.x0

    def noised(self, x: Tensor, found: Prediction, step: Step, noise: StepNoise) -> Tensor:
        """The mean x, moved by variance * score, with noise of the learned variance or the fixed one."""
        own = step.own
        if found.variance_logit is not None:  # in [-1, 1], it goes from the small variance to beta
            low, high = own["log_small"], own["log_beta"]
            log_variance = found.variance_logit.mul(0.5 * (high - low)).add_(0.5 * (high + low))
        elif found.log_variance is not None:
            log_variance = found.log_variance
        else:
            if found.score is not None:
                x.add_(found.score, alpha=own["variance"])
            return super().noised(x, found, step, noise)
        if found.score is not None:
            x.add_(log_variance.exp() * found.score)
        return x.add_((0.5 * log_variance).exp_() * noise(step.index)) if own["noisy"] else x


def _log(variance: float) -> float:
    return log(variance) if variance > 0.0 else _NEVER
