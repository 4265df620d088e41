"""A decoder run by rows: the whole decode's image without its peak of memory.

A convolution needs a row more on each side of the rows that it makes, a norm the mean and variance of the whole
image. So features are functions from rows to their values, made of one another, and each norm takes a pass in which
moments are collected (merged as in Chan et al. 1983) and one in which they are used. Between passes only what
`HELD` has room for is kept, in place of what it was made from; the rest is computed again. Up to rounding the result is
that of `Decoder.whole`.

Nearest-neighbour upsampling and the convolution after it are one: each of a pixel's four quarters sees 2x2 pixels,
under sums of the 3x3 weights (Shi et al. 2016), at 4/9 of the work.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HELD = 1.5  # times the finest level's features: what may be kept of features at any time
CHUNK = 4 * 2**20  # bytes of the widest features that are computed at once
LEAST = 4  # rows at once: two convolutions see two rows that the next rows' neighbours need

Rows = Callable[[int, int], Tensor]  # (a, b) -> rows a to b - 1 of features: (1, C, b - a, W)


class Features(NamedTuple):
    """Features (1, C, H, W) of one image; `held` is the tensor they are, or are computed from.

    pointwise: rows after a 1x1 convolution, where that is less work than rows and then the convolution.
    """

    rows: Rows
    channels: int
    height: int
    width: int
    held: Tensor
    lazy: bool = False  # computed from `held`, each time they are read
    moments: Moments | None = None
    pointwise: Callable[[nn.Conv2d], Rows] | None = None


class Moments:
    """Mean and variance of each group of channels, over rows seen one after another."""

    def __init__(self, groups: int) -> None:
        self.groups, self.count = groups, 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0  # sums of squared distances from the mean

    def see(self, rows: Tensor) -> None:
        """Add rows (1, C, h, W)."""
        channels, height, width = rows.shape[1:]
        ones = rows.new_ones(channels, dtype=torch.promote_types(rows.dtype, torch.float32))
        count = channels // self.groups * height * width
        _, mean, rstd = torch.native_group_norm(
            rows, ones, torch.zeros_like(ones), 1, channels, height * width, self.groups, 1e-12
        )
        squares = (rstd.flatten() ** -2 - 1e-12) * count
        away, whole = mean.flatten() - self.mean, self.count + count
        self.squares = self.squares + squares + away.square() * (self.count * count / whole)
        self.mean = self.mean + away * (count / whole)
        self.count = whole

    def normal(self, rows: Rows, norm: nn.GroupNorm) -> Rows:
        """Rows under a group norm with these moments, and SiLU."""
        each = norm.num_channels // self.groups
        mean = self.mean.repeat_interleave(each)
        variance = (self.squares / self.count).clamp(min=0.0).repeat_interleave(each)
        weight, bias = norm.weight.to(mean.dtype), norm.bias.to(mean.dtype)

        def made(a: int, b: int) -> Tensor:
            return F.silu(F.batch_norm(rows(a, b), mean, variance, weight, bias, eps=norm.eps), inplace=True)

        return made


def peak_bytes(decoder: Any, latents: tuple[int, int], itemsize: int) -> int:
    """About what `decode` takes besides weights, latents and images: the features that it keeps, and its chunks."""
    width = latents[1] * 2 ** (len(decoder.up) - 1)
    least = LEAST * 2 * decoder.norm_out.num_channels * width * itemsize
    return int(HELD * _finest(decoder, latents) * itemsize) + 4 * max(CHUNK, least)


def _finest(decoder: Any, latents: tuple[int, int]) -> int:
    """How many numbers the finest level's features have."""
    return decoder.norm_out.num_channels * latents[0] * latents[1] * 4 ** (len(decoder.up) - 1)


def decode(decoder: Any, z: Tensor) -> Tensor:
    """Latents (B, z, h, w) -> images (B, C, h * f, w * f), one image after another."""
    with torch.no_grad():
        return torch.cat([_decoded(decoder, one.unsqueeze(0)) for one in z])


def _decoded(decoder: Any, z: Tensor) -> Tensor:
    first = decoder.middle(z).contiguous(memory_format=torch.channels_last)
    _trim()
    limit = HELD * _finest(decoder, (z.shape[2], z.shape[3])) * first.element_size()
    x = _held(first)
    del first
    for level in reversed(decoder.up):
        attentions = list(level.attn)
        for i, block in enumerate(level.block):
            x = _block(x, block, limit)
            if attentions:
                x = _held(attentions[i](_whole(x)))
        if hasattr(level, "upsample"):
            x = _upsampled(x, level.upsample.conv, limit)
    last = decoder.conv_out
    rows = convolved(_moments(x, decoder.norm_out.num_groups).normal(x.rows, decoder.norm_out), last, x.height)
    image = x.held.new_empty(1, last.out_channels, x.height, x.width)
    for a, b in _chunks(x.height, x.width * x.channels * x.held.element_size()):
        image[:, :, a:b] = rows(a, b)
    return image


def convolved(rows: Rows, layer: nn.Conv2d, height: int) -> Rows:
    """Rows after a 3x3 convolution with zeros around the image."""

    def made(a: int, b: int) -> Tensor:
        above, below = max(a - 1, 0), min(b + 1, height)
        x = rows(above, below)
        if above != a - 1 or below != b + 1:
            x = F.pad(x, (0, 0, above - (a - 1), (b + 1) - below))
        return F.conv2d(x, layer.weight, layer.bias, padding=(0, 1))

    return made


def enlarged(rows: Rows, layer: nn.Conv2d, height: int, then: nn.Conv2d | None = None) -> Rows:
    """Rows, twice as many and as wide, after nearest-neighbour upsampling and a 3x3 convolution; `height` is before.

    then: a 1x1 convolution of the result, which is linear as the first is: both are one.
    """
    precise = torch.promote_types(layer.weight.dtype, torch.float32)
    weight, bias = layer.weight.to(precise), layer.bias
    if then is not None:
        matrix = then.weight.to(precise)[:, :, 0, 0]
        weight = torch.einsum("oc,cikl->oikl", matrix, weight)
        biases = [] if bias is None else [matrix @ bias.to(precise)]
        biases += [] if then.bias is None else [then.bias.to(precise)]
        bias = sum(biases[1:], biases[0]).to(layer.weight.dtype) if biases else None
    # A pixel's upper half sees the row above by the first weights, and its own row by the sum of the others.
    halves = (torch.stack([weight[:, :, 0], weight[:, :, 1:].sum(2)], 2),
              torch.stack([weight[:, :, :2].sum(2), weight[:, :, 2]], 2))  # fmt: skip
    quarters = [
        torch.cat([torch.stack([half[..., 0], half[..., 1:].sum(3)], 3),
                   torch.stack([half[..., :2].sum(3), half[..., 2]], 3)])
        .to(layer.weight.dtype).contiguous(memory_format=torch.channels_last)
        for half in halves
    ]  # fmt: skip
    bias = None if bias is None else bias.repeat(2)
    channels = len(weight)

    def made(a: int, b: int) -> Tensor:
        first, last = a // 2, (b + 1) // 2
        above, below = max(first - 1, 0), min(last + 1, height)
        x = rows(above, below)
        if above != first - 1 or below != last + 1:
            x = F.pad(x, (0, 0, above - (first - 1), (last + 1) - below))
        count, width = last - first, x.shape[3]
        out = x.new_empty(1, channels, 2 * count, 2 * width).contiguous(memory_format=torch.channels_last)
        for half, quarter in enumerate(quarters):
            both = F.conv2d(x[:, :, half : half + count + 1], quarter, bias, padding=(0, 1))
            out[:, :, half::2, 0::2] = both[:, :channels, :, :width]
            out[:, :, half::2, 1::2] = both[:, channels:, :, 1:]
        return out[:, :, a - 2 * first : b - 2 * first]

    return made


def _block(x: Features, block: Any, limit: float) -> Features:
    """A residual block."""
    out, groups = block.conv1.out_channels, block.norm2.num_groups
    read = _remembered(x.rows, x.height) if x.lazy else x.rows
    inner = convolved(_moments(x, block.norm1.num_groups).normal(read, block.norm1), block.conv1, x.height)
    size = out * x.height * x.width * x.held.element_size()
    shortcut = x.rows if out == x.channels else (x.pointwise or _pointwise(x.rows))(block.nin_shortcut)
    step = x.width * max(out, x.channels) * x.held.element_size()
    target, moments = x.held, Moments(groups)
    if x.lazy or out != x.channels or x.held.nbytes + size <= limit:
        target = _new(x, out)
        for a, b in _chunks(x.height, step):
            rows = inner(a, b)
            moments.see(rows)
            target[:, :, a:b] = rows
        inner = _rows(target)
    else:
        for a, b in _chunks(x.height, step):
            moments.see(inner(a, b))
    second = convolved(moments.normal(inner, block.norm2), block.conv2, x.height)
    after, waiting = Moments(groups), None
    for a, b in _chunks(x.height, step):
        rows = second(a, b).add_(shortcut(a, b))
        after.see(rows)
        # They replace what the next rows' neighbours are computed from, so they wait until these are there.
        if waiting is not None:
            target[:, :, waiting[0] : waiting[1]] = waiting[2]
        waiting = (a, b, rows)
    assert waiting is not None
    target[:, :, waiting[0] : waiting[1]] = waiting[2]
    return _held(target, after)


def _upsampled(x: Features, layer: nn.Conv2d, limit: float) -> Features:
    rows = enlarged(x.rows, layer, x.height)
    made = Features(
        rows, layer.out_channels, 2 * x.height, 2 * x.width, x.held, lazy=True,
        pointwise=lambda then: enlarged(x.rows, layer, x.height, then),
    )  # fmt: skip
    size = made.channels * made.height * made.width * x.held.element_size()
    return _held(_whole(made)) if x.held.nbytes + size <= limit else made


def _whole(x: Features) -> Tensor:
    """Features as one tensor."""
    if not x.lazy:
        return x.held
    made = _new(x, x.channels)
    for a, b in _chunks(x.height, x.width * x.channels * x.held.element_size()):
        made[:, :, a:b] = x.rows(a, b)
    return made


def _moments(x: Features, groups: int) -> Moments:
    if x.moments is not None and x.moments.groups == groups:
        return x.moments
    found = Moments(groups)
    for a, b in _chunks(x.height, x.width * x.channels * x.held.element_size()):
        found.see(x.rows(a, b))
    return found


def _held(x: Tensor, moments: Moments | None = None) -> Features:
    return Features(_rows(x), x.shape[1], x.shape[2], x.shape[3], x, moments=moments)


def _rows(x: Tensor) -> Rows:
    return lambda a, b: x[:, :, a:b]


def _remembered(rows: Rows, height: int) -> Rows:
    """The same rows, read chunk by chunk; those that a chunk shares with the one before are not computed twice."""
    begin, end, kept = 0, 0, None

    def made(a: int, b: int) -> Tensor:
        nonlocal begin, end, kept
        until = min(b + b % 2, height)  # upsampling makes them by twos
        if kept is not None and begin <= a < end <= until:
            kept = kept[:, :, a - begin :]
            kept = kept if end == until else torch.cat([kept, rows(end, until)], dim=2)
        else:
            kept = rows(a, until)
        begin, end = a, until
        return kept[:, :, : b - a]

    return made


def _pointwise(rows: Rows) -> Callable[[nn.Conv2d], Rows]:
    return lambda layer: lambda a, b: F.conv2d(rows(a, b), layer.weight, layer.bias)


def _new(x: Features, channels: int) -> Tensor:
    """Room for features (1, channels, H, W), channels-last."""
    shape, held = (1, x.height, x.width, channels), x.held
    if held.device.type != "cpu":
        return torch.empty(shape, dtype=held.dtype, device=held.device).permute(0, 3, 1, 2)
    # From the system, and given back to it with the tensor: a heap keeps what the chunks have left holes in.
    memory = mmap.mmap(-1, math.prod(shape) * held.element_size())
    return torch.frombuffer(memory, dtype=held.dtype).view(shape).permute(0, 3, 1, 2)


def _trim() -> None:
    """Give what the heap holds free back to the system, where that can be requested (glibc)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if release is not None:
        release(0)


def _chunks(height: int, row: int) -> list[tuple[int, int]]:
    """Where chunks begin and end, of rows of so many bytes: even numbers of rows, which upsampling makes."""
    step = max(LEAST, CHUNK // row // 2 * 2)
    return [(a, min(a + step, height)) for a in range(0, height, step)]
