"""TAESD, the tiny autoencoder of Stable Diffusion's latents: 2.4 million parameters, its names its author's.

madebyollin/taesd: convolutions and ReLU alone, images in [0, 1] inside, and latents that are scaled already. A clamp
to +-3 by tanh stands in front of the decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.autoencoders import arguments

DEPTH = 3  # blocks at each resolution but the full one


class Block(nn.Module):
    """Three convolutions beside a shortcut, and a ReLU; (B, C, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [layer for _ in range(3) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
        self.conv = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Softly within +-3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class TAESD(nn.Module):
    """images (B, 3, H, W) in [-1, 1] <-> scaled latents (B, channels, H / 8, W / 8), both deterministic.

    Args:
        channels: of the latents: 4 of taesd and taesdxl, 16 of taesd3 and taef1.
        width: channels of every layer within.
        scale: factor of the latents that leave it, 1 in the published ones.
    """

    fits = "zoo.autoencoders.arguments:taesd"
    pictures = True
    factor = 8

    def __init__(self, *, channels: int = 4, width: int = 64, scale: float = 1.0) -> None:
        super().__init__()
        arguments.taesd(channels=channels, width=width, scale=scale)
        self.channels, self.scale = channels, scale

        def blocks(count: int) -> list[nn.Module]:
            return [Block(width) for _ in range(count)]

        def plain(inside: int, outside: int) -> nn.Module:
            return nn.Conv2d(inside, outside, 3, padding=1)

        down, up = [plain(3, width), *blocks(1)], [Clamp(), plain(channels, width), nn.ReLU(), *blocks(DEPTH)]
        for count in (DEPTH, DEPTH, 1):
            down += [nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), *blocks(DEPTH)]
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False), *blocks(count)]
        self.encoder = nn.Sequential(*down, plain(width, channels))
        self.decoder = nn.Sequential(*up, plain(width, 3))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> latents; `noise` is accepted and not used."""
        return self.encoder(images * 0.5 + 0.5) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, channels, h, w) -> images (B, 3, 8 h, 8 w), about [-1, 1], not clipped."""
        return self.decoder(latents / self.scale) * 2 - 1
