"""Weights in eight bits, each row with a scale, multiplied out where they are used: half the memory of half precision.

| kind | a weight is | of the row's largest |
|---|---|---|
| `int8` | a whole number from -127 to 127 | equal steps of 1/127 |
| `fp8` | float8 e4m3 (Micikevicius et al. 2022) | steps of 1/16 to 1/8 of the weight itself |

Linear layers and convolutions are stored so, if they are wide; norms, biases, embeddings and the layers at a network's
ends stay as they are. Activations keep their precision, so nothing is faster.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.schema.ranges import one_of

Kind = Literal["int8", "fp8"]
KINDS: tuple[Kind, ...] = ("int8", "fp8")
LEAST = 64  # channels on either side: narrower layers are at a network's ends, and small
_LARGEST = {"int8": 127.0, "fp8": 448.0}


class _EightBit(nn.Module):
    """A layer whose `weight` is made of `eight_bits` and `scale` whenever it is read."""

    eight_bits: Tensor  # int8, or the bytes of float8, so that a change of precision leaves them alone
    scale: Tensor

    @property
    def weight(self) -> Tensor:
        stored = self.eight_bits
        stored = stored.view(torch.float8_e4m3fn) if stored.dtype == torch.uint8 else stored
        return stored.to(self.scale.dtype).mul_(self.scale)


class EightBitLinear(_EightBit, nn.Linear):
    """A linear layer with a weight of eight bits."""


class EightBitConv(_EightBit, nn.Conv2d):
    """A convolution with a weight of eight bits."""


def wide_layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """The layers of a module that eight bits are for."""
    return [
        layer for layer in module.modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and getattr(layer, "groups", 1) == 1
        and min(layer.weight.shape[:2]) >= LEAST
    ]  # fmt: skip


@torch.no_grad()
def in_eight_bits(module: nn.Module, kind: Kind) -> int:
    """Store the wide layers of a module in eight bits; returns how many weights they have. Done once, for good."""
    one_of("kind", kind, KINDS)
    found = 0
    for layer in wide_layers(module):
        if isinstance(layer, _EightBit):
            continue
        weight = layer._parameters.pop("weight")
        assert weight is not None
        eight, scale = _stored(weight.detach(), kind)
        changed: Any = layer
        changed.__class__ = EightBitConv if isinstance(layer, nn.Conv2d) else EightBitLinear
        changed.register_buffer("eight_bits", eight)
        changed.register_buffer("scale", scale)
        found += weight.numel()
    return found


def _stored(weight: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """A weight's eight bits, and each row's scale in its own precision."""
    rows = weight.flatten(1).abs().amax(1).float()
    # A scale that bfloat16 can hold is the same in every precision that the layer may be moved to.
    scale = (rows / _LARGEST[kind]).clamp(min=1e-6).bfloat16()
    shaped = scale.view(-1, *[1] * (weight.ndim - 1))
    steps = (weight.float() / shaped.float()).clamp(-_LARGEST[kind], _LARGEST[kind])
    eight = steps.round().to(torch.int8) if kind == "int8" else steps.to(torch.float8_e4m3fn).view(torch.uint8)
    return eight, shaped.to(weight.dtype)
