"""Parameterizations: what a network's output F says about the clean sample.

Each is a linear reading of the output, `x0 = c_skip * x_t + c_out * F(c_in * x_t)` (Karras et al. 2022, eq. 7), so
that a sampler sees x0 only. With x_t = alpha * x0 + sigma * eps:

| class | F predicts | c_skip | c_out |
|---|---|---|---|
| `Eps` | eps (Ho et al. 2020, eq. 12) | 1 / alpha | -sigma / alpha |
| `X0` | x0 | 0 | 1 |
| `V` | alpha * eps - sigma * x0 (Salimans & Ho 2022, appendix D) | alpha / r | -sigma / r |

with r = alpha^2 + sigma^2, which is 1 for variance-preserving schedules. Alpha and sigma may be floats, numpy arrays
or tensors; `target` is what a network of this kind is trained to give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo.errors import ConfigError
from zoo.types import Coefficients


@dataclass(frozen=True)
class Eps:
    """The network predicts the noise. It can say nothing where alpha = 0, since x_t is the noise itself there."""

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        zero = alpha == 0
        if zero if isinstance(zero, bool) else bool(zero.any()):
            raise ConfigError(
                "parameterization 'eps' doesn't determine x0 where alpha = 0; "
                "use 'v' or 'x0', or a schedule that ends above alpha = 0"
            )
        return Coefficients(c_skip=1.0 / alpha, c_out=-sigma / alpha, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """eps."""
        return eps


@dataclass(frozen=True)
class X0:
    """The network predicts the clean sample."""

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        return Coefficients(c_skip=0.0, c_out=1.0, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """x0."""
        return x0


@dataclass(frozen=True)
class V:
    """The network predicts the velocity v = alpha * eps - sigma * x0, well scaled at every noise level."""

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients:
        # alpha * x_t - sigma * v = (alpha^2 + sigma^2) * x0.
        r = alpha * alpha + sigma * sigma
        return Coefficients(c_skip=alpha / r, c_out=-sigma / r, c_in=1.0)

    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any:
        """v = alpha * eps - sigma * x0."""
        return alpha * eps - sigma * x0
