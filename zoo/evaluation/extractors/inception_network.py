"""The Inception network of 5 December 2015, as TensorFlow published it: what FID, KID and IS are numbers of.

Szegedy et al. 2016 ("Rethinking the Inception Architecture"), with what is particular to that graph:

- 1008 classes; the logits of the inception score leave out their bias;
- average pooling in a block counts real pixels only, not the padding;
- the pooling branch of the last block takes the maximum where every other takes the average.

Tensor names are those of the converted weights that FID libraries share (Conv2d_1a_3x3.conv.weight, ...). A block is a
table: branches side by side, each a row of layers. zoo.evaluation.extractors.inception_folded runs this network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

SIZE = 299  # pixels a side of what the network sees
CLASSES = 1008
LAYERS = {"pool": 2048, "logits": CLASSES, "spatial": 7 * 17 * 17}  # features and how many numbers each has


class Layer(NamedTuple):
    """A convolution with its norm and ReLU; at stride 1 it keeps the size, at stride 2 it doesn't pad."""

    name: str
    width: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1


class Fork(NamedTuple):
    """Two layers on the same input, their outputs joined."""

    left: Layer
    right: Layer


Step = Layer | Fork | str  # a string is a pooling: average, maximum or halve
Branch = tuple[Step, ...]


def _across(name: str, width: int) -> Layer:
    return Layer(name, width, (1, 7))


def _down(name: str, width: int) -> Layer:
    return Layer(name, width, (7, 1))


def _block_35(pool: int) -> tuple[Branch, ...]:
    return (
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, 5)),
        (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3)),
        ("average", Layer("branch_pool", pool)),
    )


def _block_17(w: int) -> tuple[Branch, ...]:
    return (
        (Layer("branch1x1", 192),),
        (Layer("branch7x7_1", w), _across("branch7x7_2", w), _down("branch7x7_3", 192)),
        (Layer("branch7x7dbl_1", w), _down("branch7x7dbl_2", w), _across("branch7x7dbl_3", w),
         _down("branch7x7dbl_4", w), _across("branch7x7dbl_5", 192)),
        ("average", Layer("branch_pool", 192)),
    )  # fmt: skip


def _block_8(pooling: str) -> tuple[Branch, ...]:
    def fork(name: str) -> Fork:
        return Fork(Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1)))

    return (
        (Layer("branch1x1", 320),),
        (Layer("branch3x3_1", 384), fork("branch3x3_2")),
        (Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3")),
        (pooling, Layer("branch_pool", 192)),
    )


_TO_17: tuple[Branch, ...] = (
    (Layer("branch3x3", 384, 3, 2),),
    (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, 3), Layer("branch3x3dbl_3", 96, 3, 2)),
    ("halve",),
)
_TO_8: tuple[Branch, ...] = (
    (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, 3, 2)),
    (Layer("branch7x7x3_1", 192), _across("branch7x7x3_2", 192), _down("branch7x7x3_3", 192),
     Layer("branch7x7x3_4", 192, 3, 2)),
    ("halve",),
)  # fmt: skip
# TensorFlow's mixed, mixed_1, ... mixed_10; its mixed_6 is Mixed_6d.
BLOCKS: Mapping[str, tuple[Branch, ...]] = {
    "Mixed_5b": _block_35(32), "Mixed_5c": _block_35(64), "Mixed_5d": _block_35(64),
    "Mixed_6a": _TO_17,
    "Mixed_6b": _block_17(128), "Mixed_6c": _block_17(160), "Mixed_6d": _block_17(160), "Mixed_6e": _block_17(192),
    "Mixed_7a": _TO_8,
    "Mixed_7b": _block_8("average"), "Mixed_7c": _block_8("maximum"),
}  # fmt: skip


class InceptionNetwork(nn.Module):
    """The parameters of the Inception network of 2015-12-05, by their published names."""

    STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, (3, 3), 2, (0, 0))
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, (3, 3), 1, (0, 0))
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, (3, 3), 1, (1, 1))
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, (1, 1), 1, (0, 0))
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, (3, 3), 1, (0, 0))
        width = 192
        for name, branches in BLOCKS.items():
            block = Mixed(width, branches)
            self.add_module(name, block)
            width = block.width
        self.fc = nn.Linear(width, CLASSES)
        self.eval().requires_grad_(False)

    def randomise(self, seed: int) -> InceptionNetwork:
        """Give it random weights that keep activations in bounds: for tests and for measuring speed."""
        draw = torch.Generator().manual_seed(seed)
        for name, tensor in self.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0.0, (2.0 / tensor[0].numel()) ** 0.5, generator=draw)
            else:
                tensor.fill_(1.0 if name.endswith(("bn.weight", "running_var")) else 0.0)
        return self


class ConvNorm(nn.Module):
    """A convolution without bias and a batch norm that has seen its data; ReLU follows."""

    def __init__(self, inputs: int, width: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, kernel, stride, padding, bias=False)
        self.bn = FixedNorm(width)


class FixedNorm(nn.Module):
    """The numbers of a batch norm."""

    eps = 1e-3

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))


class Mixed(nn.Module):
    """Branches side by side, their outputs joined; `width` channels come out."""

    def __init__(self, width: int, branches: Sequence[Branch]) -> None:
        super().__init__()
        self.width = 0
        for branch in branches:
            inputs = width
            for step in branch:
                if not isinstance(step, str):
                    inputs = self._add(step, inputs)
            self.width += inputs

    def _add(self, step: Layer | Fork, inputs: int) -> int:
        if isinstance(step, Fork):
            return self._add(step.left, inputs) + self._add(step.right, inputs)
        high, wide = (step.kernel, step.kernel) if isinstance(step.kernel, int) else step.kernel
        padding = (high // 2, wide // 2) if step.stride == 1 else (0, 0)
        self.add_module(step.name, ConvNorm(inputs, step.width, (high, wide), step.stride, padding))
        return step.width
