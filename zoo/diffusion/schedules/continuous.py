"""Continuous schedules: alpha_t and sigma_t as closed forms of t, and their inverse from log-SNR.

| class | who uses it |
|---|---|
| `FlowSchedule` | flow matching and rectified flow: alpha = 1 - t, sigma = t (Lipman et al. 2022; Liu et al. 2022) |
| `VPSDESchedule` | score SDE, variance preserving (Song et al. 2021b, eq. 33): beta linear in t |
| `SubVPSchedule` | score SDE, sub-variance preserving (Song et al. 2021b, eq. 29): sigma = 1 - alpha^2 |
| `ShiftedCosineSchedule` | simple diffusion (Hoogeboom et al. 2023, section 3.1): cosine, noisier for larger images |
| `VESchedule` | NCSN and score SDE, alpha = 1, sigmas a geometric sequence (Song & Ermon 2019; Song et al. 2021b) |
| `EDMSchedule` | EDM, alpha = 1, sigma^(1 / rho) linear in t (Karras et al. 2022, eq. 5) |

The last two are variance exploding. They begin at sigma_min and not at 0: all t above 0 have sigma >= sigma_min, and a
run's last step leads from there to the clean sample at t = 0. The same holds for the shifted cosine's log-SNR.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.ranges import within

# The least t above 0 of a schedule that begins with some noise.
LARGEST_BETA = 1e4
LARGEST_SIGMA = 1e6  # beyond it float32 has no digits left for the sample
LARGEST_RHO = 1e4
LARGEST_LOG_SNR = 100.0
LARGEST_SIDE = 2**14  # pixels
MOST_POINTS = 1_000_000
_LEAST_T = 1e-9


@dataclass(frozen=True, kw_only=True)
class FlowSchedule:
    """The straight path from data to noise: alpha = 1 - t, sigma = t. Continuous."""

    papers = (
        "2210.02747 Flow Matching for Generative Modeling",
        "2209.03003 Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    )

    @property
    def T(self) -> int | None:
        """None: continuous in t."""
        return None

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1 - t, t)."""
        t = _inside(t)
        return 1.0 - t, t

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        """sigma / alpha = t / (1 - t)."""
        return 1.0 / (1.0 + np.exp(np.clip(0.5 * np.asarray(log_snr, dtype=np.float64), -700.0, 700.0)))


@dataclass(frozen=True, kw_only=True)
class VPSDESchedule:
    """Variance preserving with beta linear in continuous t, from beta_min to beta_max (Song et al. 2021b, eq. 33).

    The limit of DDPM's linear schedule: its betas, times the number of points.
    """

    papers = ("2011.13456 Score-Based Generative Modeling through Stochastic Differential Equations",)

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        within(0.0, LARGEST_BETA, {"beta_min": self.beta_min, "beta_max": self.beta_max})
        if not 0.0 < self.beta_min <= self.beta_max:
            raise ConfigError(
                f"a schedule needs 0 < beta_min <= beta_max, not {self.beta_min} and {self.beta_max}; "
                "usual are 0.1, 20",
                code="schedule-invalid",
            )

    @property
    def T(self) -> int | None:
        """None: continuous in t."""
        return None

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(alpha_t, sigma_t) in the shape of t, alpha = exp(-1/2 int_0^t beta)."""
        t = _inside(t)
        decay = 0.5 * self.beta_min * t + 0.25 * (self.beta_max - self.beta_min) * t * t
        return np.exp(-decay), self._sigma(decay)

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t where ln(alpha_t^2 / sigma_t^2) has this value; noisier than the schedule's end gives t = 1."""
        decay = self._decay(np.exp(np.clip(-0.5 * np.asarray(log_snr, dtype=np.float64), -700.0, 300.0)))
        half = 0.5 * self.beta_min
        # The quadratic's root in the form that loses no digits near t = 0.
        t = 2.0 * decay / (half + np.sqrt(half * half + (self.beta_max - self.beta_min) * decay))
        return np.where(np.isposinf(log_snr), 0.0, np.minimum(t, 1.0))

    def _sigma(self, decay: np.ndarray) -> np.ndarray:
        return np.sqrt(-np.expm1(-2.0 * decay))

    def _decay(self, ratio: np.ndarray) -> np.ndarray:
        """-ln(alpha) where sigma / alpha has this value."""
        return 0.5 * np.log1p(ratio * ratio)


@dataclass(frozen=True, kw_only=True)
class SubVPSchedule(VPSDESchedule):
    """The VP-SDE's alpha with less noise, sigma = 1 - alpha^2 (Song et al. 2021b, eq. 29)."""

    papers = ("2011.13456 Score-Based Generative Modeling through Stochastic Differential Equations",)

    def _sigma(self, decay: np.ndarray) -> np.ndarray:
        return -np.expm1(-2.0 * decay)

    def _decay(self, ratio: np.ndarray) -> np.ndarray:
        # (1 - alpha^2) / alpha = 2 sinh(-ln alpha).
        return np.arcsinh(0.5 * ratio)


@dataclass(frozen=True, kw_only=True)
class ShiftedCosineSchedule:
    """The cosine schedule of `base` pixels, shifted to look as noisy at `size` (Hoogeboom et al. 2023, section 3.1).

    log-SNR = -2 ln tan(angle) + 2 ln(base / size), the angle linear in t between those of the unshifted log-SNRs `high`
    and `low`. At size = base it is the plain cosine schedule.
    """

    papers = ("2301.11093 simple diffusion: End-to-end diffusion for high resolution images",)

    size: int = 64
    base: int = 64
    low: float = -15.0
    high: float = 15.0

    def __post_init__(self) -> None:
        within(1, LARGEST_SIDE, {"size": self.size, "base": self.base})
        within(-LARGEST_LOG_SNR, LARGEST_LOG_SNR, {"low": self.low, "high": self.high})
        if self.size < 1 or self.base < 1 or not self.low < self.high:
            raise ConfigError(
                "schedule 'shifted-cosine' needs size and base of 1 or more and low < high, not "
                f"{self.size}, {self.base}, {self.low} and {self.high}; mend them",
                code="schedule-invalid",
            )

    @property
    def T(self) -> int | None:
        """None: continuous in t."""
        return None

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(alpha_t, sigma_t) in the shape of t; sigma is 0 at t = 0 and that of `high` or more above."""
        t = _inside(t)
        first, last = self._angles()
        ratio = np.tan(first + t * (last - first)) * (self.size / self.base)
        alpha = 1.0 / np.sqrt(1.0 + ratio * ratio)
        return np.where(t > 0.0, alpha, 1.0), np.where(t > 0.0, ratio * alpha, 0.0)

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t of a log-SNR, clipped to the schedule's range; 0 for infinity."""
        first, last = self._angles()
        ratio = np.exp(np.clip(-0.5 * np.asarray(log_snr, dtype=np.float64), -700.0, 700.0))
        t = (np.arctan(ratio * (self.base / self.size)) - first) / (last - first)
        return np.where(np.isposinf(log_snr), 0.0, np.clip(t, _LEAST_T, 1.0))

    def _angles(self) -> tuple[float, float]:
        return float(np.arctan(np.exp(-0.5 * self.high))), float(np.arctan(np.exp(-0.5 * self.low)))


class VarianceExploding(ABC):
    """alpha = 1 and sigma from sigma_min to sigma_max; `steps` points, or None for a continuous one."""

    sigma_min: float
    sigma_max: float
    steps: int | None

    def __post_init__(self) -> None:
        within(0.0, LARGEST_SIGMA, {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max})
        within(-math.inf, MOST_POINTS, {"steps": self.steps})
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"a schedule needs 0 < sigma_min < sigma_max, not {self.sigma_min} and {self.sigma_max}; mend them",
                code="schedule-invalid",
            )
        if self.steps is not None and self.steps < 2:
            raise ConfigError(
                f"a schedule from sigma_min to sigma_max needs two points or more, not {self.steps}",
                code="schedule-invalid",
            )

    @abstractmethod
    def _sigma(self, u: np.ndarray) -> np.ndarray:
        """The sigma at the fraction u in [0, 1] of the way from sigma_min to sigma_max."""

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
        steps: noise levels, None for a continuous one. The first of NCSN's sigmas is the largest; here it is t = 1.
    """

    papers = (
        "1907.05600 Generative Modeling by Estimating Gradients of the Data Distribution",
        "2011.13456 Score-Based Generative Modeling through Stochastic Differential Equations",
    )

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

    papers = ("2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",)

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        within(0.0, LARGEST_RHO, {"rho": self.rho})
        if not self.rho > 0.0:
            raise ConfigError(f"schedule 'edm' needs rho > 0, not {self.rho}; usual is 7", code="schedule-invalid")

    def _sigma(self, u: np.ndarray) -> np.ndarray:
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return (low + u * (high - low)) ** self.rho

    def _share(self, sigma: np.ndarray) -> np.ndarray:
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return (sigma ** (1.0 / self.rho) - low) / (high - low)


def _inside(t: float | np.ndarray) -> np.ndarray:
    t = np.asarray(t, dtype=np.float64)
    if np.any(~(t >= 0.0)) or np.any(t > 1.0):
        raise UsageError(
            f"a schedule is defined for t in [0, 1], not for t = {t}; clip t first", code="time-out-of-range"
        )
    return t
