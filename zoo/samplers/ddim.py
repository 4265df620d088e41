"""DDIM: denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16).

Estimate the noise in x_t, then compose x at the next, lower noise level from both, with fresh noise for a part:

    eps = (x_t - alpha_t x0) / sigma_t
    x_s = alpha_s x0 + sqrt(sigma_s^2 - tau^2) eps + tau z,      z ~ N(0, I)
    tau = eta * (sigma_s / sigma_t) * sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2)

eta = 0 draws no noise and is a first-order solver of the probability-flow ODE; eta = 1 is DDPM with its small variance.
Written out, a step is x_s = a x_t + b x0 + tau z.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from zoo.samplers.linear import LinearSampler, Rows, Walk, kept_noise
from zoo.schema.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DDIM(LinearSampler):
    """Deterministic at eta = 0 (the default), as noisy as DDPM at eta = 1."""

    papers = ("2010.02502 Denoising Diffusion Implicit Models",)

    steps: int = 30
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ConfigError(
                f"DDIM's eta lies in [0, 1], not at {self.eta}; 0 is deterministic, 1 is DDPM", code="eta-out-of-range"
            )

    def write(self, table: Rows, walk: Walk) -> None:
        """One evaluation a step."""
        for here, there in walk.strides:
            seen, kept = table.look(here), kept_noise(here, there)
            tau = self.eta * there.sigma * sqrt(max(0.0, 1.0 - kept * kept))  # eq. 16
            a = sqrt(max(0.0, there.sigma**2 - tau**2)) / here.sigma
            table.add(here, there, a * seen.x + (there.alpha - a * here.alpha) * seen.x0, noise=tau)  # eq. 12
