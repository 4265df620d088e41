"""The 2015 Inception as it is run: the same function as the published network's, rearranged to cost less.

- A norm that has seen its data is a scale and a shift: with w the weights of the convolution before it,
  s = gamma / sqrt(var + eps), it is one convolution with weights s w and bias beta - s mean. In float32, rounded last.
- An average over a pixel's neighbours and a 1x1 convolution are both linear and act on different axes, so they commute:
  the pooling branches average what their convolution leaves (32 to 192 channels), and not what it reads (up to 2048).
  The bias may be in it, since the average counts real pixels only. The maximum of the last block commutes with nothing.
- Everything is channels-last, which is how convolutions on a CPU want it; there the weights are kept in its kernels'
  order, and ReLU is in the kernel.

What is read off, pooled features and logits, is float32 in any precision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.evaluation.extractors.inception_network import BLOCKS, Branch, ConvNorm, Fork, InceptionNetwork, Layer, Step

Call = Callable[[Tensor], Tensor]
SPATIAL = "Mixed_6d.branch1x1"  # mixed_6/conv


class Convolution:
    """A convolution with its norm folded in, and ReLU unless something comes between."""

    def __init__(self, layer: ConvNorm, dtype: torch.dtype, *, relu: bool = True) -> None:
        conv, bn = layer.conv, layer.bn
        scale = bn.weight.float() * torch.rsqrt(bn.running_var.float() + bn.eps)
        weight = (conv.weight.float() * scale[:, None, None, None]).to(dtype, memory_format=torch.channels_last)
        self.bias = (bn.bias.float() - bn.running_mean.float() * scale).to(dtype)
        self.stride, self.padding, self.relu = list(conv.stride), [int(p) for p in conv.padding], relu
        self.weight = weight, False  # and whether they are in oneDNN's own order already

    def __call__(self, x: Tensor) -> Tensor:
        weight, ordered = self.weight
        if x.device.type == "cpu" and fuses(x.dtype):
            if not ordered:
                weight = _reorder(weight, self.padding, self.stride, list(x.shape))
                self.weight = weight, True
            return _fused(x, weight, self.bias, self.padding, self.stride, relu=self.relu)
        x = F.conv2d(x, weight, self.bias, self.stride, self.padding)
        return x.relu_() if self.relu else x


def _reorder(weight: Tensor, padding: list[int], stride: list[int], size: list[int]) -> Tensor:
    """The weights as the CPU's kernel for inputs of this size reads them, once and not at every call."""
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, size)


def _fused(x: Tensor, weight: Tensor, bias: Tensor, padding: list[int], stride: list[int], *, relu: bool) -> Tensor:
    what = "relu" if relu else "none"
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, [1, 1], 1, what, [], "")


@cache
def fuses(dtype: torch.dtype) -> bool:
    """Whether a convolution with ReLU in one kernel, and its weights in that kernel's order, is there and right.

    torch.compile's own operations, which aren't public: tried on a small convolution, and not used where
    they are missing, are called otherwise or come out otherwise. Then features are slower.
    """
    x = torch.linspace(-1.0, 1.0, 2 * 16 * 9 * 9).view(2, 16, 9, 9).to(dtype, memory_format=torch.channels_last)
    weight = torch.linspace(-1.0, 1.0, 32 * 16 * 9).sin().view(32, 16, 3, 3)
    weight = weight.to(dtype, memory_format=torch.channels_last)
    bias = torch.linspace(-1.0, 1.0, 32).to(dtype)
    expected = F.conv2d(x.float(), weight.float(), bias.float(), [2, 2], [1, 1])
    try:
        ordered = _reorder(weight, [1, 1], [2, 2], list(x.shape))
        found = [_fused(x, ordered, bias, [1, 1], [2, 2], relu=relu).float() for relu in (True, False)]
    except (AttributeError, RuntimeError, TypeError):
        return False
    near = 1e-5 if dtype == torch.float32 else 2e-2
    scale = near * float(expected.abs().max())
    return all(torch.allclose(f, e, atol=scale) for f, e in zip(found, (expected.relu(), expected), strict=True))


@dataclass(frozen=True)
class _Row:
    """Layers one after another, then those that all see the last one's output; none: that output itself."""

    steps: tuple[Call, ...]
    ends: tuple[Call, ...] = ()

    def __call__(self, x: Tensor) -> list[Tensor]:
        for step in self.steps:
            x = step(x)
        return [end(x) for end in self.ends] or [x]


class FoldedInception:
    """The Inception network of 2015-12-05 with the weights that `network` has now, in one precision."""

    def __init__(self, network: InceptionNetwork, dtype: torch.dtype) -> None:
        self.network, self.dtype = network, dtype
        self.stem = [self._convolution(name) for name in network.STEM]
        self.blocks = {name: [self._row(name, branch) for branch in rows] for name, rows in BLOCKS.items()}
        self.spatial = self._convolution(SPATIAL)
        self.classes = network.fc.weight.float()

    def _convolution(self, name: str, *, relu: bool = True) -> Convolution:
        layer = self.network.get_submodule(name)
        assert isinstance(layer, ConvNorm)
        return Convolution(layer, self.dtype, relu=relu)

    def _row(self, block: str, branch: Branch) -> _Row:
        if branch[0] == "average" and isinstance(branch[1], Layer):
            return _Row((self._convolution(f"{block}.{branch[1].name}", relu=False), _average_then_relu))
        *steps, last = branch
        if isinstance(last, Fork):
            ends = tuple(self._step(block, layer) for layer in (last.left, last.right))
            return _Row(tuple(self._step(block, step) for step in steps), ends)
        return _Row(tuple(self._step(block, step) for step in branch))

    def _step(self, block: str, step: Step) -> Call:
        if isinstance(step, Layer):
            return self._convolution(f"{block}.{step.name}")
        return {"maximum": _maximum, "halve": _halve}[str(step)]

    def __call__(self, x: Tensor, layers: Collection[str] = ("pool",)) -> dict[str, Tensor]:
        """Images (B, 3, 299, 299), (value - 128) / 128 -> the requested layers, each (B, D) float32.

        `pool` is 2048-D; `logits` are 1008, without their bias; `spatial` is the first 7 channels of mixed_6/conv,
        17x17 each (ADM's sFID).
        """
        x = x.to(self.dtype, memory_format=torch.channels_last)
        for number, convolution in enumerate(self.stem):
            x = convolution(x)
            if number in (2, 4):
                x = _halve(x)
        found: dict[str, Tensor] = {}
        for name, rows in self.blocks.items():
            if name == "Mixed_6d" and "spatial" in layers:
                found["spatial"] = self.spatial(x)[:, :7].flatten(1).float()
                if set(layers) == {"spatial"}:
                    return found
            x = torch.cat([part for row in rows for part in row(x)], dim=1)
        pool = x.float().mean(dim=(2, 3))
        if "pool" in layers:
            found["pool"] = pool
        if "logits" in layers:
            found["logits"] = F.linear(pool, self.classes)
        return found


def _average_then_relu(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False).relu_()


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2)
