"""Parameterizations: what a network's output F says about the clean sample.

Each is a linear reading of the output, `x0 = c_skip * x_t + c_out * F(c_in * x_t)` (Karras et al. 2022, eq. 7), so
that a sampler sees x0 only. With x_t = alpha * x0 + sigma * eps:

| class | F predicts | c_skip | c_out |
|---|---|---|---|
| `Eps` | eps (Ho et al. 2020, eq. 12) | 1 / alpha | -sigma / alpha |
| `X0` | x0 | 0 | 1 |
| `V` | alpha * eps - sigma * x0 (Salimans & Ho 2022, appendix D) | alpha / r | -sigma / r |
| `Flow` | eps - x0 (Lipman et al. 2022; Liu et al. 2022) | 1 / (alpha + sigma) | -sigma / (alpha + sigma) |
| `Score` | grad log p(x_t) = -eps / sigma (Song & Ermon 2019) | 1 / alpha | sigma^2 / alpha |
| `EDM` | x0 at unit variance (Karras et al. 2022, table 1) | alpha d^2 / q | sigma d / sqrt(q) |

with r = alpha^2 + sigma^2, which is 1 for variance-preserving schedules, d the data's deviation and
q = sigma^2 + alpha^2 d^2. Only `EDM` scales its input: c_in = 1 / sqrt(q). Alpha and sigma may be floats, numpy arrays
or tensors; `target` is what a network of this kind is trained to give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.diffusion.types import Coefficients
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import within


@dataclass(frozen=True)
class Eps:
    """The network predicts the noise. It doesn't determine x0 where alpha = 0, since x_t is the noise itself there."""

    papers = ("2006.11239 Denoising Diffusion Probabilistic Models",)

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        _refuse_zero(alpha, "eps")
        return Coefficients(c_skip=1.0 / alpha, c_out=-sigma / alpha, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """eps."""
        return eps


@dataclass(frozen=True)
class X0:
    """The network predicts the clean sample."""

    papers = ("2202.00512 Progressive Distillation for Fast Sampling of Diffusion Models",)

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        return Coefficients(c_skip=0.0, c_out=1.0, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """x0."""
        return x0


@dataclass(frozen=True)
class V:
    """The network predicts the velocity v = alpha * eps - sigma * x0, well scaled at every noise level."""

    papers = ("2202.00512 Progressive Distillation for Fast Sampling of Diffusion Models",)

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        # alpha * x_t - sigma * v = (alpha^2 + sigma^2) * x0.
        r = alpha * alpha + sigma * sigma
        return Coefficients(c_skip=alpha / r, c_out=-sigma / r, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """v = alpha * eps - sigma * x0."""
        return alpha * eps - sigma * x0


@dataclass(frozen=True)
class Flow:
    """The network predicts the velocity eps - x0 of the straight path from data to noise: flow matching."""

    papers = (
        "2210.02747 Flow Matching for Generative Modeling",
        "2209.03003 Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    )

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        # x_t - sigma * (eps - x0) = (alpha + sigma) * x0.
        total = alpha + sigma
        return Coefficients(c_skip=1.0 / total, c_out=-sigma / total, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """eps - x0."""
        return eps - x0


@dataclass(frozen=True, kw_only=True)
class EDM:
    """EDM's preconditioning: network input, output and target have unit variance at every noise level.

    Karras et al. 2022, table 1, gives it for x_t / alpha and sigma / alpha; here it is for any alpha.

    Args:
        sigma_data: the data's standard deviation.
    """

    papers = ("2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",)

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        within(0.0, 1e3, {"sigma_data": self.sigma_data}, "(]", usual=0.5)

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        d = self.sigma_data
        q = sigma * sigma + alpha * alpha * d * d
        return Coefficients(c_skip=alpha * d * d / q, c_out=sigma * d / q**0.5, c_in=1.0 / q**0.5)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """(x0 - c_skip * x_t) / c_out, with sigma cancelled."""
        d = self.sigma_data
        q = sigma * sigma + alpha * alpha * d * d
        return (sigma * x0 - alpha * d * d * eps) / (d * q**0.5)


@dataclass(frozen=True)
class Score:
    """The network predicts the score, grad log p(x_t) = -eps / sigma; like eps it doesn't determine x0 at alpha = 0."""

    papers = ("1907.05600 Generative Modeling by Estimating Gradients of the Data Distribution",)

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        _refuse_zero(alpha, "score")
        # Tweedie: alpha * x0 = x_t + sigma^2 * score.
        return Coefficients(c_skip=1.0 / alpha, c_out=sigma * sigma / alpha, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """-eps / sigma."""
        return -eps / sigma


def _refuse_zero(alpha: Any, name: str) -> None:
    zero = alpha == 0
    if zero if isinstance(zero, bool) else bool(zero.any()):
        raise ConfigError(
            f"parameterization '{name}' doesn't determine x0 where alpha = 0; "
            "use 'v' or 'x0', or a schedule that ends above alpha = 0",
            code="alpha-zero-undefined",
        )
