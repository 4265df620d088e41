"""Noise schedules: how much of the clean sample and how much noise x_t holds, `x_t = alpha_t * x0 + sigma_t * eps`.

A schedule is a function of t in [0, 1], t = 0 clean and t = 1 its noisiest point, and it belongs to the weights: a
network reads x_t right only under the schedule it was trained with. Those defined by T betas are variance preserving,
alpha_t^2 + sigma_t^2 = 1 (Ho et al. 2020, eq. 2 and 4):

    alpha_bar_i = prod_{j <= i} (1 - beta_j),    alpha = sqrt(alpha_bar_i),    sigma = sqrt(1 - alpha_bar_i),

with index i at t = (i + 1) / T. Between the points ln(sigma / alpha) is interpolated linearly in the index, as
k-diffusion does; below the first point alpha_bar goes linearly to 1 at t = 0.

| class | who uses it |
|---|---|
| `LinearSchedule` | DDPM (Ho et al. 2020), ADM, DiT |
| `ScaledLinearSchedule` | latent diffusion and Stable Diffusion (Rombach et al. 2022): linear in sqrt(beta) |
| `CosineSchedule` | improved DDPM (Nichol & Dhariwal 2021, eq. 17), GLIDE, IF |
| `FlowSchedule` | flow matching: alpha = 1 - t, sigma = t (Lipman et al. 2022; Liu et al. 2022) |
| `VESchedule` | NCSN and score SDE, alpha = 1, sigmas a geometric row (Song & Ermon 2019; Song et al. 2021b) |
| `EDMSchedule` | EDM, alpha = 1, sigma^(1 / rho) linear in t (Karras et al. 2022, eq. 5) |

The last two explode the variance. They begin at sigma_min and not at 0: all t above 0 have sigma >= sigma_min, and a
run's last step leads from there to the clean sample at t = 0.

Everything is float64 numpy: a run asks for some dozens of numbers, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.errors import ConfigError, UsageError

# Points closer than this (in units of an index) to a point of the table are that point: (i + 1) / T * T is not
# always i + 1 in floating point.
_SNAP = 1e-9
# Stands for the least t above 0 of a continuous schedule that begins at sigma_min.
_LEAST_T = 1e-9


class DiscreteSchedule(ABC):
    """A variance-preserving schedule defined by a table of betas."""

    steps: int

    @abstractmethod
    def _make_betas(self) -> np.ndarray:
        """The (T,) betas, float64."""

    @property
    def T(self) -> int:
        """How many points the schedule has."""
        return self.steps

    @cached_property
    def betas(self) -> np.ndarray:
        """(T,) variances of the forward steps."""
        return _read_only(self._make_betas())

    @cached_property
    def alphas_bar(self) -> np.ndarray:
        """(T,) alpha_t^2 at the points, noisiest last."""
        return _read_only(np.cumprod(1.0 - self.betas))

    @cached_property
    def _log_ratios(self) -> np.ndarray:
        """(T,) ln(sigma / alpha), increasing: what is linear between the points."""
        return _read_only(0.5 * (np.log1p(-self.alphas_bar) - np.log(self.alphas_bar)))

    def index_from_t(self, t: float | np.ndarray) -> np.ndarray:
        """The index of a point, t * T - 1: whole at the points, -1 at t = 0, fractional between."""
        index = np.asarray(t, dtype=np.float64) * self.T - 1.0
        nearest = np.round(index)
        return np.where(np.abs(index - nearest) < _SNAP, nearest, index)

    def t_from_index(self, index: float | np.ndarray) -> np.ndarray:
        """The t of an index, (i + 1) / T."""
        return (np.asarray(index, dtype=np.float64) + 1.0) / self.T

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(alpha_t, sigma_t) in the shape of t."""
        index = self.index_from_t(t)
        if np.any(~(index >= -1.0)) or np.any(index > self.T - 1):
            raise UsageError(f"a schedule is defined for t in [0, 1], not for t = {t}; clip t first")
        # Tables with t = 0 in front have their rows at index + 1.
        row = index + 1.0
        below = np.floor(row).astype(np.int64)
        alphas_bar = np.concatenate([[1.0], self.alphas_bar])
        exact = alphas_bar[below]
        early = 1.0 - np.clip(row, 0.0, 1.0) * (1.0 - self.alphas_bar[0])
        log_ratio = np.interp(index, np.arange(self.T, dtype=np.float64), self._log_ratios)
        between = 1.0 / (1.0 + np.exp(2.0 * log_ratio))
        alpha_bar = np.where(row == below, exact, np.where(index < 0.0, early, between))
        return np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t where ln(alpha_t^2 / sigma_t^2) has this value; noisier than the schedule's end gives t = 1."""
        log_snr = np.asarray(log_snr, dtype=np.float64)
        log_ratio = -0.5 * log_snr
        index = np.interp(log_ratio, self._log_ratios, np.arange(self.T, dtype=np.float64))
        one_minus_alpha_bar = 1.0 / (1.0 + np.exp(np.clip(log_snr, -700.0, 700.0)))
        early = one_minus_alpha_bar / (1.0 - self.alphas_bar[0]) - 1.0
        early = np.where(np.isposinf(log_snr), -1.0, early)
        return self.t_from_index(np.where(log_ratio < self._log_ratios[0], early, index))


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(DiscreteSchedule):
    """Betas on a straight line (Ho et al. 2020, section 4).

    The default betas are meant for 1000 points; with fewer, scale them by 1000 / steps to end as noisy.
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        _check_betas(self.beta_start, self.beta_end)

    def _make_betas(self) -> np.ndarray:
        return np.linspace(self.beta_start, self.beta_end, self.steps, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class ScaledLinearSchedule(DiscreteSchedule):
    """Betas whose square roots lie on a straight line (Rombach et al. 2022): Stable Diffusion's schedule.

    It ends at alpha = 0.068, not at pure noise.
    """

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        _check_betas(self.beta_start, self.beta_end)

    def _make_betas(self) -> np.ndarray:
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=np.float64) ** 2


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(DiscreteSchedule):
    """alpha_bar proportional to cos^2, its betas capped (Nichol & Dhariwal 2021, eq. 17)."""

    steps: int = 1000
    offset: float = 0.008
    beta_cap: float = 0.999

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        if self.offset < 0.0:
            raise ConfigError(f"a cosine schedule's offset can't be negative ({self.offset}); the paper's is 0.008")
        if not 0.0 < self.beta_cap < 1.0:
            raise ConfigError(f"a cosine schedule's beta_cap must lie in (0, 1), not {self.beta_cap}; usual is 0.999")

    def _make_betas(self) -> np.ndarray:
        u = np.arange(self.steps + 1, dtype=np.float64) / self.steps
        alpha_bar = np.cos((u + self.offset) / (1.0 + self.offset) * np.pi / 2.0) ** 2
        # The cap keeps the last point above alpha = 0, where an eps prediction would say nothing about x0.
        return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], self.beta_cap)


@dataclass(frozen=True, kw_only=True)
class FlowSchedule:
    """The straight path from data to noise: alpha = 1 - t, sigma = t. Continuous."""

    @property
    def T(self) -> int | None:
        """None: any t is as good."""
        return None

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1 - t, t)."""
        t = _inside(t)
        return 1.0 - t, t

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        """sigma / alpha = t / (1 - t)."""
        return 1.0 / (1.0 + np.exp(np.clip(0.5 * np.asarray(log_snr, dtype=np.float64), -700.0, 700.0)))


class VarianceExploding(ABC):
    """alpha = 1 and sigma from sigma_min to sigma_max; `steps` points, or None for a continuous one."""

    sigma_min: float
    sigma_max: float
    steps: int | None

    def __post_init__(self) -> None:
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"a schedule needs 0 < sigma_min < sigma_max, not {self.sigma_min} and {self.sigma_max}; mend them"
            )
        if self.steps is not None and self.steps < 2:
            raise ConfigError(f"a schedule from sigma_min to sigma_max needs two points or more, not {self.steps}")

    @abstractmethod
    def _sigma(self, u: np.ndarray) -> np.ndarray:
        """The sigma at a share u in [0, 1] of the way from sigma_min to sigma_max."""

    @abstractmethod
    def _share(self, sigma: np.ndarray) -> np.ndarray:
        """Its inverse."""

    @property
    def T(self) -> int | None:
        """How many points the schedule has, None if it is continuous."""
        return self.steps

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1, sigma_t) in the shape of t; sigma is 0 at t = 0 and at least sigma_min above."""
        t = _inside(t)
        u = t if self.steps is None else np.clip((t * self.steps - 1.0) / (self.steps - 1.0), 0.0, 1.0)
        return np.ones_like(t), np.where(t > 0.0, self._sigma(u), 0.0)

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t of a sigma, clipped to [sigma_min, sigma_max]; 0 for infinity."""
        sigma = np.exp(np.clip(-0.5 * np.asarray(log_snr, dtype=np.float64), -700.0, 700.0))
        u = np.clip(self._share(np.clip(sigma, self.sigma_min, self.sigma_max)), 0.0, 1.0)
        t = np.maximum(u, _LEAST_T) if self.steps is None else (u * (self.steps - 1.0) + 1.0) / self.steps
        return np.where(np.isposinf(log_snr), 0.0, t)


@dataclass(frozen=True, kw_only=True)
class VESchedule(VarianceExploding):
    """Sigmas in geometric progression (Song & Ermon 2019, section 4; Song et al. 2021b, eq. 30).

    Args:
        steps: noise levels, None for a continuous row. The first of NCSN's sigmas is the largest; here it is t = 1.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    steps: int | None = None

    def _sigma(self, u: np.ndarray) -> np.ndarray:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u

    def _share(self, sigma: np.ndarray) -> np.ndarray:
        return np.log(sigma / self.sigma_min) / np.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True, kw_only=True)
class EDMSchedule(VarianceExploding):
    """Sigmas whose rho-th roots lie on a straight line, so that evenly spaced t are EDM's steps.

    Karras et al. 2022, eq. 5; with rho = 1 time is sigma itself.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rho > 0.0:
            raise ConfigError(f"schedule 'edm' needs rho > 0, not {self.rho}; usual is 7")

    def _sigma(self, u: np.ndarray) -> np.ndarray:
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return (low + u * (high - low)) ** self.rho

    def _share(self, sigma: np.ndarray) -> np.ndarray:
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return (sigma ** (1.0 / self.rho) - low) / (high - low)


def _inside(t: float | np.ndarray) -> np.ndarray:
    t = np.asarray(t, dtype=np.float64)
    if np.any(~(t >= 0.0)) or np.any(t > 1.0):
        raise UsageError(f"a schedule is defined for t in [0, 1], not for t = {t}; clip t first")
    return t


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"a schedule needs at least one point, not steps = {steps}; usual is 1000")


def _check_betas(beta_start: float, beta_end: float) -> None:
    if not 0.0 < beta_start <= beta_end < 1.0:
        raise ConfigError(f"betas must satisfy 0 < beta_start <= beta_end < 1, not {beta_start} and {beta_end}")


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
