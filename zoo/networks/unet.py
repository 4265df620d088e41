"""The U-Net of the OpenAI family, with the cross-attention transformer of latent diffusion.

Ho et al. 2020 (appendix B), Dhariwal & Nichol 2021 (section 3) and Rombach et al. 2022 (section 3.3). The names
`time_embed`, `input_blocks`, `middle_block`, `output_blocks`, `out` and every shape equal the published files of
Stable Diffusion 1, so these load by stripping a prefix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.transformer import SpatialTransformer


def timestep_embedding(time: Tensor, width: int, *, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal features of time (B,) -> (B, width): cosines first, exponent divided by half the width.

    Vaswani et al. 2017, section 3.5, in the order of OpenAI's, CompVis' and Stability's weights.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angles = time.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResBlock(nn.Module):
    """Residual block told the time: (B, in, H, W) and emb (B, D) -> (B, out, H, W)."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int, *, groups: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        for parameter in self.out_layers[3].parameters():  # each block starts as its shortcut (Dhariwal & Nichol 2021)
            nn.init.zeros_(parameter)
        same = channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    """Halve H and W by a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Double H and W by nearest neighbour and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Block(nn.Sequential):
    """A row of layers; each is handed what its kind listens to."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context, mask)
            else:
                x = layer(x)
        return x


class UNet(nn.Module):
    """The OpenAI block layout with cross-attention to text: Stable Diffusion 1's network.

    F(x, time, context): (B, in_channels, H, W) -> (B, out_channels, H, W). H and W must be
    multiples of 2 ** (levels - 1).

    Args:
        width: channels of the finest level; mult: multiples of it, one a level; blocks: residual blocks a level.
        attention_levels: levels with a transformer after each residual block, counted from the finest.
        heads: attention heads, the same everywhere; head_width: instead, channels a head. One of the two is given:
            tensors don't show which, and the wrong one gives the wrong picture (SD 1 has 8 heads, SD 2 width 64).
        depth: transformer blocks in each transformer.
        context_width: D of the tokens (B, L, D) that cross-attention reads.
        projection: into and out of each transformer, a 1x1 `conv` (SD 1) or a `linear` layer (SD 2).
        groups: groups of every norm. middle_attention: a transformer in the middle block.
    """

    reads = ("context", "mask")  # what of a condition this network listens to

    def __init__(
        self, *, in_channels: int = 4, out_channels: int = 4, width: int = 320, mult: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2, attention_levels: Sequence[int] = (0, 1, 2), heads: int | None = None,
        head_width: int | None = None, depth: int = 1, context_width: int = 768,
        projection: Literal["conv", "linear"] = "conv", groups: int = 32, middle_attention: bool = True,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if (heads is None) == (head_width is None):
            raise ValueError("network 'unet': give either heads or head_width; the tensors don't show which is meant")
        self.in_channels, self.out_channels, self.width = in_channels, out_channels, width
        self.size_multiple = 2 ** (len(mult) - 1)
        emb_channels = 4 * width

        def res(inside: int, outside: int) -> ResBlock:
            return ResBlock(inside, emb_channels, outside, groups=groups, dropout=dropout)

        def transformer(channels: int) -> SpatialTransformer:
            return SpatialTransformer(
                channels, heads=heads if heads is not None else channels // (head_width or channels),
                depth=depth, context_width=context_width, projection=projection, groups=groups,
            )  # fmt: skip

        self.time_embed = nn.Sequential(
            nn.Linear(width, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(in_channels, width, 3, padding=1))])
        skips, channels = [width], width
        for level, m in enumerate(mult):
            for _ in range(blocks):
                layers: list[nn.Module] = [res(channels, m * width)]
                channels = m * width
                if level in attention_levels:
                    layers.append(transformer(channels))
                self.input_blocks.append(Block(*layers))
                skips.append(channels)
            if level < len(mult) - 1:
                self.input_blocks.append(Block(Downsample(channels)))
                skips.append(channels)
        middle = [transformer(channels)] if middle_attention else []
        self.middle_block = Block(res(channels, channels), *middle, res(channels, channels))
        self.output_blocks = nn.ModuleList()
        for level, m in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                layers = [res(channels + skips.pop(), m * width)]
                channels = m * width
                if level in attention_levels:
                    layers.append(transformer(channels))
                if level > 0 and i == blocks:
                    layers.append(Upsample(channels))
                self.output_blocks.append(Block(*layers))
        last = nn.Conv2d(channels, out_channels, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.out = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), last)

    def forward(self, x: Tensor, time: Tensor, *, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, in_channels, H, W); time (B,) as the weights know it; context (B, L, D); mask (B, L), True = read."""
        emb = self.time_embed(timestep_embedding(time, self.width).to(x.dtype))
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, emb, context, mask)
            skips.append(h)
        h = self.middle_block(h, emb, context, mask)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb, context, mask)
        return self.out(h)
