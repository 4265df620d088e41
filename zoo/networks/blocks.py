"""The building blocks of the OpenAI layout, which U-Nets, super-resolution networks and classifiers share.

Ho et al. 2020 (appendix B); Dhariwal & Nichol 2021 (section 3) for what came later: attention at several resolutions,
residual blocks that resample, adaptive group normalisation. Names and shapes equal those of the published files.

Samples are (B, C, *spatial) with one, two or three spatial dimensions (`dims`); what is said of H and W holds for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.networks.transformer import Context, SpatialTransformer
from zoo.schema.errors import UsageError

Resample = Literal["down", "up"]
QKVOrder = Literal["legacy", "new"]
DownsamplePadding = Literal["both", "end"]
M = TypeVar("M", bound=nn.Module)


def timestep_embedding(time: Tensor, width: int, *, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal features of time (B,) -> (B, width): cosines first, exponent divided by half the width.

    Vaswani et al. 2017, section 3.5, in the order of OpenAI's, CompVis' and Stability's weights.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angles = time.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def sines_first_embedding(time: Tensor, width: int, *, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal features of time (B,) -> (B, width) as Ho et al. 2020 order them: sines first, and slower cosines.

    The exponent is divided by one less than half the width, so that the last frequency is 1 / max_period.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=time.device)
    angles = time.float()[:, None] * torch.exp(-math.log(max_period) * steps / (half - 1))[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def convolution(dims: int, inside: int, outside: int, size: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
    """A convolution over one, two or three spatial dimensions."""
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    return kind(inside, outside, size, stride=stride, padding=padding)


def embedding_layers(width: int, emb_channels: int) -> nn.Sequential:
    """From features of a number (B, width) to the embedding (B, emb_channels) that residual blocks read."""
    return nn.Sequential(nn.Linear(width, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels))


def zeroed(module: M) -> M:
    """The module with its parameters at zero: a residual branch that starts at zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def halve(x: Tensor) -> Tensor:
    """H and W halved by the mean of each 2x2 cell."""
    return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.ndim - 3](x, 2)


def double(x: Tensor) -> Tensor:
    """H and W doubled by the nearest neighbour."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """Residual block conditioned on time: (B, in, H, W) and emb (B, D) -> (B, out, H, W).

    scale_shift: emb scales and shifts the second norm's output (adaptive group normalisation) and is not added before
    it. resample: both branches are halved or doubled, the inner one between activation and convolution.
    """

    def __init__(
        self, channels: int, emb_channels: int, out_channels: int, *, groups: int, dropout: float = 0.0,
        scale_shift: bool = False, resample: Resample | None = None, dims: int = 2, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels, eps=eps), nn.SiLU(), convolution(dims, channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels if scale_shift else out_channels)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out_channels, eps=eps),
            nn.SiLU(),
            nn.Dropout(dropout),
            # Each block starts as its shortcut (Dhariwal & Nichol 2021).
            zeroed(convolution(dims, out_channels, out_channels, 3, padding=1)),
        )
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else convolution(dims, channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.resample is None:
            h = self.in_layers(x)
        else:
            resize = halve if self.resample == "down" else double
            h = self.in_layers[2](resize(self.in_layers[1](self.in_layers[0](x))))
            x = resize(x)
        told = self.emb_layers(emb)
        told = told.reshape(*told.shape, *[1] * (x.ndim - 2))
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[3](self.out_layers[2](self.out_layers[1](h)))
        else:
            h = self.out_layers(h + told)
        return self.skip_connection(x) + h


def attend(qkv: Tensor, *, heads: int, order: QKVOrder) -> Tensor:
    """Attention of qkv (B, 3 C, N) to itself -> (B, C, N); the order in which its rows are stored is `order`."""
    width = qkv.shape[1] // 3 // heads
    if order == "legacy":  # [head][q, k, v][channel]
        q, k, v = qkv.unflatten(1, (heads, 3, width)).transpose(-1, -2).unbind(2)
    else:  # [q, k, v][head][channel]
        q, k, v = qkv.unflatten(1, (3, heads, width)).transpose(-1, -2).unbind(1)
    return F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).flatten(1, 2)


class AttentionBlock(nn.Module):
    """Self-attention over the positions of (B, C, H, W), beside a shortcut."""

    def __init__(
        self, channels: int, *, heads: int, order: QKVOrder = "legacy", groups: int, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.heads = heads
        self.order: QKVOrder = order
        self.norm = nn.GroupNorm(groups, channels, eps=eps)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = attend(self.qkv(self.norm(x.flatten(2))), heads=self.heads, order=self.order)
        return x + self.proj_out(h).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Halve H and W by a strided convolution, or by the mean.

    padding: the convolution sees a border of zeros on `both` sides (OpenAI) or at the `end` alone (Ho et al. 2020).
    """

    def __init__(self, channels: int, *, conv: bool = True, dims: int = 2, padding: DownsamplePadding = "both") -> None:
        super().__init__()
        self.border = (0, 1) * dims if conv and padding == "end" else ()
        self.op = (
            convolution(dims, channels, channels, 3, stride=2, padding=0 if self.border else 1)
            if conv
            else (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1](2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(F.pad(x, self.border) if self.border else x)


class Upsample(nn.Module):
    """Double H and W by nearest neighbour, and a convolution."""

    def __init__(self, channels: int, *, conv: bool = True, out_channels: int | None = None, dims: int = 2) -> None:
        super().__init__()
        self.conv = convolution(dims, channels, out_channels or channels, 3, padding=1) if conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(double(x))


class Block(nn.Sequential):
    """A row of layers; each gets the inputs that its kind reads."""

    def forward(self, x: Tensor, emb: Tensor, context: Context = None, mask: Tensor | None = None) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context, mask)
            else:
                x = layer(x)
        return x


def call(block: nn.Module, *inputs: Context, recompute: bool) -> Tensor:
    """block(*inputs); with `recompute` its activations are recomputed in the backward pass.

    Chen et al. 2016: memory of the blocks' outputs alone, for a third more compute.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)  # type: ignore[return-value]
    return block(*inputs)


def check_told(network: str, reads: Sequence[str], given: Mapping[str, Any]) -> None:
    """UsageError where a network isn't given an input that it reads, or is given one that it doesn't."""
    for name, value in given.items():
        if value is None and name in reads and name != "mask":
            raise UsageError(
                f"network '{network}' reads '{name}' and is given none; listen to what gives it",
                code="condition-missing",
            )
        if value is not None and name not in reads:
            raise UsageError(
                f"network '{network}' is given '{name}' and was built to read {', '.join(reads) or 'time alone'}",
                code="condition-unread",
            )
