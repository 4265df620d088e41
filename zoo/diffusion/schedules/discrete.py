"""Schedules defined by T betas: variance preserving, alpha_t^2 + sigma_t^2 = 1 (Ho et al. 2020, eq. 2 and 4).

    alpha_bar_i = prod_{j <= i} (1 - beta_j),    alpha = sqrt(alpha_bar_i),    sigma = sqrt(1 - alpha_bar_i),

with index i at t = (i + 1) / T. Between the points ln(sigma / alpha) is interpolated linearly in the index, as
k-diffusion does; below the first point alpha_bar goes linearly to 1 at t = 0. Where the last point is pure noise its
ln(sigma / alpha) is infinite, and alpha goes linearly to 0 instead.

| class | who uses it |
|---|---|
| `LinearSchedule` | DDPM (Ho et al. 2020), ADM, DiT |
| `ScaledLinearSchedule` | latent diffusion and Stable Diffusion (Rombach et al. 2022): linear in sqrt(beta) |
| `QuadraticSchedule` | the same line with DDPM's ends: `quad` in DDPM's code |
| `SigmoidSchedule` | betas on a logistic curve, as in GeoDiff (Xu et al. 2022) |
| `CosineSchedule` | improved DDPM (Nichol & Dhariwal 2021, eq. 17), GLIDE, IF |
| `TabulatedSchedule` | any betas, written out |
| `ZeroTerminalSNR` | another of these, moved to end at pure noise (Lin et al. 2024, algorithm 1) |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.ranges import within

# Points closer than this (in units of an index) to a point of the table are that point: (i + 1) / T * T is not
# always i + 1 in floating point.
_SNAP = 1e-9
_MOST_POINTS = 1_000_000  # of a table, which is made whole


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
        with np.errstate(divide="ignore"):  # pure noise is at infinity
            return _read_only(0.5 * (np.log1p(-self.alphas_bar) - np.log(self.alphas_bar)))

    @cached_property
    def _finite(self) -> int:
        """How many points are not pure noise: T, or T - 1."""
        return self.T - int(self.alphas_bar[-1] == 0.0)

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
            raise UsageError(
                f"a schedule is defined for t in [0, 1], not for t = {t}; clip t first", code="time-out-of-range"
            )
        # Tables with t = 0 in front have their rows at index + 1.
        row = index + 1.0
        below = np.floor(row).astype(np.int64)
        alphas_bar = np.concatenate([[1.0], self.alphas_bar])
        exact = alphas_bar[below]
        early = 1.0 - np.clip(row, 0.0, 1.0) * (1.0 - self.alphas_bar[0])
        finite = self._finite
        log_ratio = np.interp(index, np.arange(finite, dtype=np.float64), self._log_ratios[:finite])
        between = 1.0 / (1.0 + np.exp(2.0 * log_ratio))
        if finite < self.T:
            late = alphas_bar[finite] * np.clip(self.T - 1.0 - index, 0.0, 1.0) ** 2
            between = np.where(index > finite - 1.0, late, between)
        alpha_bar = np.where(row == below, exact, np.where(index < 0.0, early, between))
        return np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar)

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        """The t where ln(alpha_t^2 / sigma_t^2) has this value; noisier than the schedule's end gives t = 1."""
        log_snr = np.asarray(log_snr, dtype=np.float64)
        log_ratio = -0.5 * log_snr
        finite = self._finite
        index = np.interp(log_ratio, self._log_ratios[:finite], np.arange(finite, dtype=np.float64))
        if finite < self.T:
            alpha = np.sqrt(1.0 / (1.0 + np.exp(np.clip(-log_snr, -700.0, 700.0))))
            late = self.T - 1.0 - np.minimum(alpha / np.sqrt(self.alphas_bar[finite - 1]), 1.0)
            index = np.where(log_ratio > self._log_ratios[finite - 1], late, index)
        one_minus_alpha_bar = 1.0 / (1.0 + np.exp(np.clip(log_snr, -700.0, 700.0)))
        early = one_minus_alpha_bar / (1.0 - self.alphas_bar[0]) - 1.0
        early = np.where(np.isposinf(log_snr), -1.0, early)
        return self.t_from_index(np.where(log_ratio < self._log_ratios[0], early, index))


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(DiscreteSchedule):
    """Betas on a straight line (Ho et al. 2020, section 4).

    The default betas are meant for 1000 points; with fewer, scale them by 1000 / steps to end as noisy.
    """

    papers = ("2006.11239 Denoising Diffusion Probabilistic Models",)

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

    papers = ("2112.10752 High-Resolution Image Synthesis with Latent Diffusion Models",)

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        _check_betas(self.beta_start, self.beta_end)

    def _make_betas(self) -> np.ndarray:
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=np.float64) ** 2


@dataclass(frozen=True, kw_only=True)
class QuadraticSchedule(ScaledLinearSchedule):
    """Betas whose square roots lie on a straight line between DDPM's ends: `quad` in the code of Ho et al. 2020."""

    papers = ("2006.11239 Denoising Diffusion Probabilistic Models",)

    beta_start: float = 1e-4
    beta_end: float = 0.02


@dataclass(frozen=True, kw_only=True)
class SigmoidSchedule(DiscreteSchedule):
    """Betas on a logistic curve between beta_start and beta_end (Xu et al. 2022, GeoDiff).

    Args:
        reach: the curve runs from the logistic function of -reach to that of reach.
    """

    papers = ("2203.02923 GeoDiff: a Geometric Diffusion Model for Molecular Conformation Generation",)

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    reach: float = 6.0

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        _check_betas(self.beta_start, self.beta_end)
        within(0.0, 100.0, {"reach": self.reach})  # beyond it all betas are one of the two
        if not self.reach > 0.0:
            raise ConfigError(
                f"schedule 'sigmoid' needs reach > 0, not {self.reach}; usual is 6", code="schedule-invalid"
            )

    def _make_betas(self) -> np.ndarray:
        share = 1.0 / (1.0 + np.exp(-np.linspace(-self.reach, self.reach, self.steps, dtype=np.float64)))
        return self.beta_start + share * (self.beta_end - self.beta_start)


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(DiscreteSchedule):
    """alpha_bar proportional to cos^2, its betas capped (Nichol & Dhariwal 2021, eq. 17)."""

    papers = ("2102.09672 Improved Denoising Diffusion Probabilistic Models",)
    default = True

    steps: int = 1000
    offset: float = 0.008
    beta_cap: float = 0.999

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        within(-math.inf, 1e3, {"offset": self.offset})
        if self.offset < 0.0:
            raise ConfigError(
                f"a cosine schedule's offset can't be negative ({self.offset}); the paper's is 0.008",
                code="schedule-invalid",
            )
        if not 0.0 < self.beta_cap < 1.0:
            raise ConfigError(
                f"a cosine schedule's beta_cap must lie in (0, 1), not {self.beta_cap}; usual is 0.999",
                code="schedule-invalid",
            )

    def _make_betas(self) -> np.ndarray:
        u = np.arange(self.steps + 1, dtype=np.float64) / self.steps
        alpha_bar = np.cos((u + self.offset) / (1.0 + self.offset) * np.pi / 2.0) ** 2
        # The cap keeps the last point above alpha = 0, where an eps prediction doesn't determine x0.
        return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], self.beta_cap)


@dataclass(frozen=True, kw_only=True)
class TabulatedSchedule(DiscreteSchedule):
    """Betas that are written out, the cleanest point's first. The last may be 1: it ends at pure noise then."""

    table: list[float]

    def __post_init__(self) -> None:
        # A tuple, so that the schedule is immutable.
        object.__setattr__(self, "table", tuple(self.table))
        _check_steps(len(self.table))
        if self.table == (1.0,):
            raise ConfigError(
                "schedule 'tabulated' can't be pure noise alone; add points before it to its table",
                code="schedule-invalid",
            )
        if not all(0.0 < beta < 1.0 for beta in self.table[:-1]) or not 0.0 < self.table[-1] <= 1.0:
            raise ConfigError(
                "schedule 'tabulated' needs betas in (0, 1), of which the last may be 1; mend its table",
                code="schedule-invalid",
            )

    @property
    def steps(self) -> int:
        """One point a beta."""
        return len(self.table)

    def _make_betas(self) -> np.ndarray:
        return np.array(self.table, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class ZeroTerminalSNR(DiscreteSchedule):
    """Another discrete schedule, shifted and scaled in alpha to end at pure noise (Lin et al. 2024, algorithm 1).

    Its first point stays. An eps prediction doesn't determine x0 at the last one; train with v or x0.
    """

    papers = ("2305.08891 Common Diffusion Noise Schedules and Sample Steps are Flawed",)

    schedule: DiscreteSchedule

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, DiscreteSchedule) or self.schedule.T < 2:
            raise ConfigError(
                "schedule 'zero-terminal-snr' rescales a table of betas with two points or more, which "
                f"{type(self.schedule).__name__} has not; give it a discrete schedule",
                code="schedule-not-discrete",
            )

    @property
    def steps(self) -> int:
        """As many points as the schedule that is rescaled."""
        return self.schedule.T

    def _make_betas(self) -> np.ndarray:
        alpha = np.sqrt(self.schedule.alphas_bar)
        alpha_bar = ((alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))) ** 2
        return 1.0 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= _MOST_POINTS:
        raise ConfigError(
            f"a schedule needs 1 to {_MOST_POINTS} points, not steps = {steps}; usual is 1000", code="schedule-invalid"
        )


def _check_betas(beta_start: float, beta_end: float) -> None:
    if not 0.0 < beta_start <= beta_end < 1.0:
        raise ConfigError(
            f"betas must satisfy 0 < beta_start <= beta_end < 1, not {beta_start} and {beta_end}",
            code="schedule-invalid",
        )


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
