"""Linear layers and convolutions by oneDNN on a CPU, their weights in the layout that its kernels read.

PyTorch lays a convolution's weights out anew at every call, which takes as long as the convolution itself where a
network is wide and its features are small; and it multiplies float32 matrices by MKL, which is slow on processors
of other makers than its own. What `torch.compile` does about both, here without compiling: results differ by rounding
alone. A packed convolution has its weights twice.

A layer whose gradient is wanted runs as always, and so does one whose weights say nothing of changes in place, as those
made in inference mode don't.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["able", "pack", "unpack"]


class _Packed(nn.Module):
    """A layer with `_kept`: its weight as oneDNN has it, and what that was made of."""

    weight: Tensor
    bias: Tensor | None
    _kept: tuple[Any, Tensor] | None

    def _runs(self, x: Tensor) -> bool:
        """Whether oneDNN can take this call."""
        if x.device.type != "cpu" or x.dtype != self.weight.dtype or not _takes(x.dtype) or not x.numel():
            return False
        if self.weight.is_inference():  # it has no version, so a change in place would go unseen
            return False
        return not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))

    def _packed(self, x: Tensor) -> Tensor:
        weight = self.weight
        of = (weight.data_ptr(), weight.dtype, weight._version)
        kept = self._kept
        if kept is None or kept[0] != of:
            self._kept = kept = of, self._pack(weight.detach(), x)
        return kept[1]

    def _pack(self, weight: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError


class PackedLinear(_Packed, nn.Linear):
    """A linear layer by oneDNN; float32 weights stay as they are."""

    def forward(self, input: Tensor) -> Tensor:
        """As the plain layer."""
        if not self._runs(input):
            return nn.Linear.forward(self, input)
        # Float32 gains no more by another layout, so it costs no memory.
        weight = self.weight if input.dtype == torch.float32 else self._packed(input)
        return torch.ops.mkldnn._linear_pointwise(input, weight, self.bias, "none", [], "")

    def _pack(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), x.numel() // x.shape[-1])


class PackedConv2d(_Packed, nn.Conv2d):
    """A convolution by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        """As the plain layer."""
        if not self._runs(input) or input.ndim != 4:
            return nn.Conv2d.forward(self, input)
        return torch.ops.mkldnn._convolution_pointwise(
            input, self._packed(input), self.bias, self.padding, self.stride, self.dilation, self.groups, "none", [], ""
        )

    def _pack(self, weight: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(
            weight, self.padding, self.stride, self.dilation, self.groups, list(x.shape)
        )


PLAIN: dict[type[nn.Module], type[_Packed]] = {nn.Linear: PackedLinear, nn.Conv2d: PackedConv2d}


def able() -> bool:
    """Whether this build of PyTorch has oneDNN and the operators that its compiler uses."""
    names = ("_linear_pointwise", "_reorder_linear_weight", "_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def pack(module: nn.Module) -> None:
    """Let a module's linear layers and convolutions run by oneDNN; weights are laid out at their next call.

    Those of layers that are packed already too: others may have come to the same place in memory.
    """
    for layer in module.modules():
        other = type(layer) if isinstance(layer, _Packed) else PLAIN.get(type(layer))
        if other is None or (isinstance(layer, nn.Conv2d) and not _plain(layer)):
            continue
        changed: Any = layer
        changed.__class__ = other
        changed._kept = None


def unpack(module: nn.Module) -> None:
    """Take `pack` back."""
    for layer in module.modules():
        if isinstance(layer, _Packed):
            changed: Any = layer
            del changed._kept
            changed.__class__ = next(plain for plain, packed in PLAIN.items() if packed is type(layer))


def _plain(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _takes(dtype: torch.dtype) -> bool:
    if dtype == torch.float32:
        return True
    said = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    return said is not None and bool(getattr(torch.ops.mkldnn, said)())
