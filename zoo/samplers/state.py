"""What sampling loops do with their state: keep it wide, read a prediction as one x0, scale it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from zoo.diffusion.types import Prediction, Step, StepTable

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """x in float32, or in float64 where it is; half precision would lose the small steps."""
    import torch

    return x if x.dtype == torch.float64 else x.float()


NEARLY_NOISE = 200.0  # of sigma / alpha


def guided_x0(prediction: Prediction, step: Step) -> Tensor:
    """The estimate an ODE solver follows: x0, with a classifier's gradient folded in.

    By Tweedie's formula x0 = (x_t + sigma^2 grad log p(x_t)) / alpha, so adding grad log p(y | x_t) to the score adds
    sigma^2 / alpha of it to x0 (Dhariwal & Nichol 2021, algorithm 2, does so with eps). In nearly pure noise a true
    gradient is as small as alpha, and a learned one is not: where sigma / alpha is above 200 (cosine's first step is at
    2e4, linear's at 157) its term would be far too large, and is left out.
    """
    if prediction.score is None or step.sigma > NEARLY_NOISE * step.alpha:
        return prediction.x0
    return prediction.x0.add(prediction.score, alpha=step.sigma**2 / step.alpha)


def state_factors(table: StepTable, x: Tensor) -> tuple[Tensor, ...]:
    """Each step's first coefficient, the factor of x_t, as a tensor without dimensions in the dtype of x.

    `x.mul(factor)` with a Python number would make such a tensor on every step, which takes as long as the
    product itself. On the CPU it counts as a number for any device. The next batch of a run has the same ones.
    """
    return _numbers(tuple(step.coefficients[0] for step in table.steps), x.dtype)


@lru_cache(maxsize=64)
def _numbers(values: tuple[float, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    import torch

    with torch.inference_mode(False):  # whose tensors the next run might not be allowed to use
        return torch.tensor(values, dtype=dtype).unbind()
