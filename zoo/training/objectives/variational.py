"""The variational bound of a denoiser, in bits per dimension, and what trains learned variances by it.

Ho et al. 2020, eq. 5, with s the point before t:

    L_T = KL(q(x_T | x0) || N(0, I)),   L_t = KL(q(x_s | x_t, x0) || p(x_s | x_t)),   L_0 = -log p(x0 | x_1)

q(x_s | x_t, x0) is the Gaussian of eq. 6 and 7; p has the same form with the network's x0 and its variance: `small` or
`beta` as DDPM's sampler has them, or where between the network has learned (Nichol & Dhariwal 2021, eq. 15). L_0 is the
discretised decoder of Ho et al. 2020, eq. 13: the Gaussian's mass in the cell of width 2 / 255 around each 8-bit value,
the outer cells open (OpenAI's code approximates that mass by a tanh; here it is the mass). The whole bound is L_T + the
sum over all points, over ln 2 and the number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from zoo.diffusion.schedules import DiscreteSchedule
from zoo.diffusion.types import NoiseSchedule
from zoo.schema.errors import ConfigError

Fixed = Literal["fixed_small", "fixed_large"]


def discrete(schedule: NoiseSchedule) -> DiscreteSchedule:
    """The schedule, if it has a bound: discrete and variance preserving; else ConfigError."""
    if not isinstance(schedule, DiscreteSchedule) or schedule.steps < 2:
        raise ConfigError(
            "the variational bound is one of schedules defined by betas, with two points or more; use schedule "
            "linear, scaled-linear or cosine, or objective.loss: simple",
            code="bound-undefined",
        )
    return schedule


class Posterior:
    """q(x_s | x_t, x0) at points of a schedule: tensors (B, 1, ...) for samples of `ndim` dimensions.

    mean = a x_t + b x0; log_small and log_beta are the ends of a learned range. The first point's small variance is 0;
    where a logarithm is needed it is the second point's, as in OpenAI's code. log_large is beta but for the first
    point, which has that small variance too: `fixed_large` as OpenAI's code has it.
    """

    def __init__(self, schedule: DiscreteSchedule, t: np.ndarray, like: Tensor) -> None:
        index = np.round(np.asarray(t) * schedule.T).astype(np.int64) - 1
        bars = np.concatenate([[1.0], schedule.alphas_bar])
        betas, here, before = schedule.betas, bars[1:], bars[:-1]
        small = betas * (1.0 - before) / (1.0 - here)
        log_small = np.log(np.append(small[1], small[1:]))
        a = np.sqrt(1.0 - betas) * (1.0 - before) / (1.0 - here)
        b = np.sqrt(before) * betas / (1.0 - here)

        def at(table: np.ndarray) -> Tensor:
            values = torch.from_numpy(table[index]).to(like.device, torch.promote_types(like.dtype, torch.float32))
            return values.view(-1, *[1] * (like.ndim - 1))

        self.a, self.b = at(a), at(b)
        self.log_small, self.log_beta = at(log_small), at(np.log(betas))
        self.log_large = at(np.append(log_small[0], np.log(betas[1:])))
        self.first = torch.from_numpy(index == 0).to(like.device)

    def mean(self, x_t: Tensor, x0: Tensor) -> Tensor:
        """Ho et al. 2020, eq. 7."""
        return self.a * x_t + self.b * x0

    def log_variance(self, logit: Tensor | None, fixed: Fixed) -> Tensor:
        """The log variance of p: learned from a logit in [-1, 1], or fixed."""
        if logit is None:
            return self.log_small if fixed == "fixed_small" else self.log_large
        return 0.5 * (self.log_beta - self.log_small) * logit + 0.5 * (self.log_beta + self.log_small)


def term(
    schedule: DiscreteSchedule, t: np.ndarray, *, x0: Tensor, x_t: Tensor, x0_hat: Tensor, logit: Tensor | None,
    fixed: Fixed = "fixed_large",
) -> Tensor:  # fmt: skip
    """(B,) bits per dimension of the bound's term at each sample's t: L_t, or L_0 at the first point."""
    q = Posterior(schedule, t, x0)
    mean, log_variance = q.mean(x_t, x0_hat), q.log_variance(logit, fixed)
    kl = gaussian_kl(q.mean(x_t, x0), q.log_small, mean, log_variance)
    nll = -discretised_log_likelihood(x0, mean, 0.5 * log_variance)
    first = q.first.view(-1, *[1] * (x0.ndim - 1))
    return bits(torch.where(first, nll, kl))


def prior(schedule: DiscreteSchedule, x0: Tensor) -> Tensor:
    """(B,) bits per dimension of L_T."""
    alpha, sigma = (float(v) for v in schedule(1.0))
    zero = torch.zeros((), dtype=x0.dtype, device=x0.device)
    return bits(gaussian_kl(alpha * x0, zero + 2.0 * np.log(sigma), zero, zero))


@torch.no_grad()
def bits_per_dimension(
    predict: Callable[[Tensor, float], tuple[Tensor, Tensor | None]], schedule: DiscreteSchedule, x0: Tensor,
    noise: Callable[[int], Tensor], *, fixed: Fixed = "fixed_large",
) -> Tensor:  # fmt: skip
    """(B,) the whole bound, all T terms: `predict(x_t, t)` gives (x0, logit or None), `noise(i)` eps of point i."""
    total = prior(schedule, x0)
    for i in range(schedule.T):
        t = (i + 1) / schedule.T
        alpha, sigma = (float(v) for v in schedule(t))
        x_t = alpha * x0 + sigma * noise(i)
        x0_hat, logit = predict(x_t, t)
        total = total + term(
            schedule, np.full(len(x0), t), x0=x0, x_t=x_t, x0_hat=x0_hat, logit=logit, fixed=fixed
        )  # fmt: skip
    return total


def gaussian_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other)) in nats, elementwise."""
    apart = (mean - other_mean).square() * torch.exp(-other_log_variance)
    ratio = log_variance - other_log_variance
    return 0.5 * (ratio.exp() - 1.0 - ratio + apart)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """ln of the mass that N(mean, deviation^2) gives the 8-bit cell of x in [-1, 1], elementwise."""
    scale = torch.exp(-log_deviation)
    above, below = (x + 1.0 / 255.0 - mean) * scale, (x - 1.0 / 255.0 - mean) * scale
    # By symmetry the upper tail is the lower one of the mirrored number, where small masses keep their digits.
    flipped = (below > 0.0) & (above > 0.0)
    high, low = torch.where(flipped, -below, above), torch.where(flipped, -above, below)
    inside = torch.special.ndtr(high) - torch.special.ndtr(low)
    last, firsts = torch.special.log_ndtr(-below), torch.special.log_ndtr(above)
    middle = torch.log(inside.clamp_min(1e-12))
    return torch.where(x < -0.999, firsts, torch.where(x > 0.999, last, middle))


def bits(nats: Tensor) -> Tensor:
    """(B, ...) nats of each element -> (B,) mean in bits."""
    return nats.flatten(1).mean(dim=1) / float(np.log(2.0))
