"""An exact denoiser: data of a Gaussian mixture, for which E[x0 | x_t] is known in closed form (the oracle).

With x0 ~ sum_k w_k N(m_k, s_k^2 I) and x_t = alpha x0 + sigma eps, x_t of component k has variance
v_k = alpha^2 s_k^2 + sigma^2, and

    E[x0 | x_t] = sum_k p(k | x_t) (m_k + alpha s_k^2 / v_k * (x_t - alpha m_k)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import V
from zoo.diffusion.types import Condition, DenoiseFn, NoiseSchedule, Parameterization, StepTable


@dataclass(frozen=True)
class Mixture:
    """weights (K,), means (K, *shape), deviations (K,); everything float64."""

    weights: Tensor
    means: Tensor
    deviations: Tensor

    def x0(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x0 | x_t = x], evaluated in float64, in the dtype of x."""
        flat = x.double().flatten(1)  # (B, D)
        means = self.means.flatten(1)  # (K, D)
        variances = alpha**2 * self.deviations**2 + sigma**2
        offsets = flat[:, None] - alpha * means  # (B, K, D)
        log_likelihood = -0.5 * (offsets**2).sum(-1) / variances - 0.5 * flat.shape[1] * variances.log()
        belongs = torch.softmax(self.weights.log() + log_likelihood, dim=1)  # (B, K)
        shrink = (alpha * self.deviations**2 / variances)[:, None]
        estimate = (belongs[..., None] * (means + shrink * offsets)).sum(1)
        return estimate.reshape(x.shape).to(x.dtype)

    def eps(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[eps | x_t = x]."""
        return (x - alpha * self.x0(x, alpha, sigma)) / sigma


def mixture(shape: tuple[int, ...] = (2, 3, 3), components: int = 3, seed: int = 0) -> Mixture:
    """Some mixture over samples of a shape, within about [-1, 1]."""
    rng = np.random.default_rng(seed)
    return Mixture(
        weights=torch.from_numpy(rng.dirichlet(np.full(components, 5.0))),
        means=torch.from_numpy(rng.uniform(-1.0, 1.0, (components, *shape))),
        deviations=torch.from_numpy(rng.uniform(0.2, 0.5, components)),
    )


class OracleNetwork(nn.Module):
    """A network of some parameterization for the mixture; it takes the schedule's index."""

    def __init__(self, data: Mixture, schedule: NoiseSchedule, parameterization: Parameterization) -> None:
        super().__init__()
        self.data, self.schedule, self.parameterization = data, schedule, parameterization
        self.calls: list[tuple[int, float]] = []

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, *shape), time (B,) -> the output of such a network."""
        assert bool((time == time[0]).all())
        self.calls.append((x.shape[0], float(time[0])))
        points = self.schedule.T
        t = float(time[0]) / 999.0 if points is None else (float(time[0]) + 1.0) / points
        alpha, sigma = (float(v) for v in self.schedule(t))
        c_in = self.parameterization(alpha, sigma).c_in
        x = x if c_in == 1.0 else x / c_in
        x0 = self.data.x0(x, alpha, sigma)
        return self.parameterization.target(x0, (x - alpha * x0) / sigma, alpha, sigma)


def oracle(data: Mixture, schedule: NoiseSchedule, parameterization: Parameterization | None = None) -> Denoiser:
    """The mixture's own denoiser, whose network has any parameterization."""
    parameterization = V() if parameterization is None else parameterization
    return Denoiser(
        network=OracleNetwork(data, schedule, parameterization),
        schedule=schedule,
        parameterization=parameterization,
        time_input="t999" if schedule.T is None else "index",
        time_rounding="interpolate",
    )


def bound_oracle(
    data: Mixture, schedule: NoiseSchedule, table: StepTable, parameterization: Parameterization | None = None
) -> DenoiseFn:
    """What a sampler calls."""
    return oracle(data, schedule, parameterization).bind(Condition(), table)


@dataclass(frozen=True)
class AngleSchedule:
    """Continuous and smooth: alpha = cos(pi t / 2), sigma = sin(pi t / 2)."""

    T: None = None

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = np.asarray(t, dtype=np.float64) * np.pi / 2.0
        return np.cos(angle), np.sin(angle)

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        return np.arctan(np.exp(-0.5 * np.asarray(log_snr, dtype=np.float64))) * 2.0 / np.pi


@dataclass(frozen=True)
class ExplodingSchedule:
    """Variance exploding: alpha = 1, sigma from 0 to 20."""

    T: None = None

    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        t = np.asarray(t, dtype=np.float64)
        return np.ones_like(t), 20.0 * t**3

    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray:
        return (np.exp(-0.5 * np.asarray(log_snr, dtype=np.float64)) / 20.0) ** (1.0 / 3.0)


def start(table: StepTable, shape: Sequence[int], *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit normal times the start's standard deviation of noise."""
    unit = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)
    return unit * table.start.sigma


def no_noise(step: int, draw: int = 0) -> Tensor:
    """The noise of deterministic samplers."""
    raise AssertionError("a deterministic sampler asked for noise")


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|."""
    return float((a.double() - b.double()).norm() / b.double().norm())
