"""Linear measurements of a sample, y = H x0 + noise: what is left of an image that was masked, shrunk or blurred.

A measurement, bound to the shape of samples, is an operator with what inverting it takes: H, its transpose, and the
solution of (a H H^T + b) z = y, for which H H^T is diagonal, in pixels or in the frequencies of a cosine transform.

| measurement | H | H H^T |
|---|---|---|
| `Masked` | keeps some positions | 1 there |
| `Downsampled` | the mean of each square of factor x factor | 1 / factor^2 |
| `Blurred` | a Gaussian kernel, edges mirrored | the squared response at each frequency |
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, prod, sqrt
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.guidance import arguments
from zoo.schema.errors import UsageError

Shape = tuple[int, int, int]  # (C, H, W)


class Operator(Protocol):
    """H for samples (B, C, H, W); `count` is how many numbers it measures of a sample."""

    count: int
    gain: float  # the mean of H H^T's diagonal

    def __call__(self, x: Tensor) -> Tensor: ...
    def transpose(self, y: Tensor, /) -> Tensor: ...
    def solve(self, y: Tensor, a: float, b: float) -> Tensor: ...


class Measurement(Protocol):
    """A measurement by name. `shrinks`: by what factor y has fewer pixels a side; `needs_noise`: no inverse without."""

    hears_mask: bool
    needs_noise: bool

    @property
    def shrinks(self) -> int: ...
    def bind(self, shape: Shape, known: Tensor | None = None) -> Operator: ...


@dataclass(frozen=True, kw_only=True)
class Masked:
    """The positions outside the call's mask are known: inpainting."""

    hears_mask = True
    needs_noise = False

    @property
    def shrinks(self) -> int:
        """y is as large as the sample; 0 where it is not known."""
        return 1

    def bind(self, shape: Shape, known: Tensor | None = None) -> Operator:
        """known: broadcastable to samples, 1 where they are known and 0 elsewhere."""
        if known is None:
            raise UsageError("measurement 'masked' needs a mask of what is not known; give one", code="mask-missing")
        return _Keep(known, shape)


class _Keep:
    gain = 1.0

    def __init__(self, known: Tensor, shape: Shape) -> None:
        self.known = known.float()
        self.count = int(self.known.expand(1, *shape).sum())

    def __call__(self, x: Tensor) -> Tensor:
        return self.known.to(x) * x

    transpose = __call__

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        return y / (a + b)


@dataclass(frozen=True, kw_only=True)
class Downsampled:
    """The mean of each square of factor x factor pixels: super-resolution."""

    fits = "zoo.guidance.arguments:downsampled"

    factor: int = 4
    hears_mask = False
    needs_noise = False

    def __post_init__(self) -> None:
        arguments.downsampled(factor=self.factor)

    @property
    def shrinks(self) -> int:
        """The factor."""
        return self.factor

    def bind(self, shape: Shape, known: Tensor | None = None) -> Operator:
        """Samples' height and width must be multiples of the factor."""
        if any(side % self.factor for side in shape[1:]):
            raise UsageError(
                f"samples of {shape[1]}x{shape[2]} have no means of {self.factor}x{self.factor} pixels",
                code="size-indivisible",
            )
        return _Mean(self.factor, shape)


class _Mean:
    def __init__(self, factor: int, shape: Shape) -> None:
        self.factor, self.gain = factor, 1.0 / factor**2
        self.count = prod(shape) // factor**2

    def __call__(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.factor)

    def transpose(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3) * self.gain

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        return y / (a * self.gain + b)


@dataclass(frozen=True, kw_only=True)
class Blurred:
    """A Gaussian blur with edges mirrored: deblurring; `deviation` is the kernel's, in pixels."""

    fits = "zoo.guidance.arguments:blurred"

    deviation: float = 2.0
    hears_mask = False
    needs_noise = True  # frequencies that the kernel removes can't be restored by division

    def __post_init__(self) -> None:
        arguments.blurred(deviation=self.deviation)

    @property
    def shrinks(self) -> int:
        """y is as large as the sample."""
        return 1

    def bind(self, shape: Shape, known: Tensor | None = None) -> Operator:
        """A symmetric kernel over mirrored edges is diagonal in the cosine transform (DCT-II) of each axis."""
        return _Blur(self.deviation, shape)


class _Blur:
    def __init__(self, deviation: float, shape: Shape) -> None:
        self.count = prod(shape)
        self.rows, of_rows = _cosines(shape[1]), _response(shape[1], deviation)
        self.columns, of_columns = _cosines(shape[2]), _response(shape[2], deviation)
        self.response = of_rows[:, None] * of_columns
        self.gain = float((self.response**2).mean())

    def __call__(self, x: Tensor) -> Tensor:
        return self._scaled(x, self.response)

    transpose = __call__  # the kernel is symmetric

    def solve(self, y: Tensor, a: float, b: float) -> Tensor:
        return self._scaled(y, 1.0 / (a * self.response**2 + b))

    def _scaled(self, x: Tensor, factors: Tensor) -> Tensor:
        rows, columns = self.rows.to(x), self.columns.to(x)
        return rows.T @ (factors.to(x) * (rows @ x @ columns.T)) @ columns


def _cosines(n: int) -> Tensor:
    """The orthonormal DCT-II of n points, (frequency, position), float64."""
    place = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(torch.pi / n * (place + 0.5) * place[:, None]) * sqrt(2.0 / n)
    matrix[0] *= sqrt(0.5)
    return matrix


def _response(n: int, deviation: float) -> Tensor:
    """The response of the kernel, cut off at four deviations, at each of n frequencies."""
    reach = range(1, int(4.0 * deviation + 0.5) + 1)
    frequency = torch.arange(n, dtype=torch.float64)
    total, left = 1.0, torch.ones(n, dtype=torch.float64)
    for m in reach:
        weight = 2.0 * exp(-0.5 * (m / deviation) ** 2)
        total += weight
        left = left + weight * torch.cos(torch.pi / n * frequency * m)
    return left / total
