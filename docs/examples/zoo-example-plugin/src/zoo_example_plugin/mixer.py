"""An MLP-Mixer that denoises (Tolstikhin et al. 2021), told the time as DiT's blocks are (Peebles & Xie 2023).

The picture is cut into patches, a token each. A block mixes the tokens, channel by channel, and then the channels,
token by token; time scales and shifts what goes into both, and scales what comes out. It knows one size of pictures.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks.blocks import timestep_embedding
from zoo.schema.errors import ConfigError


def mlp(inside: int, hidden: int) -> nn.Sequential:
    """Two layers and a GELU between them."""
    return nn.Sequential(nn.Linear(inside, hidden), nn.GELU(), nn.Linear(hidden, inside))


class MixerBlock(nn.Module):
    """tokens (B, L, D), time (B, D) -> tokens (B, L, D)."""

    def __init__(self, *, tokens: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.across, self.within = mlp(tokens, 2 * tokens), mlp(width, 4 * width)
        self.told = nn.Linear(width, 6 * width)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale_a, shift_a, gate_a, scale_b, shift_b, gate_b = self.told(F.silu(time))[:, None].chunk(6, dim=2)
        mixed = self.norm(h) * (1 + scale_a) + shift_a
        h = h + gate_a * self.across(mixed.transpose(1, 2)).transpose(1, 2)
        return h + gate_b * self.within(self.norm(h) * (1 + scale_b) + shift_b)


class MLPMixer(nn.Module):
    """An MLP-Mixer that denoises pictures of one size: (x, time) -> (B, out_channels, size, size).

    Args:
        size: pixels (or latents) a side; patch: pixels a side of a token.
        width: channels of a token; blocks: how many blocks mix them.
    """

    # The arguments of a small one: what the conformance suite builds.
    example: ClassVar[dict[str, int]] = {"size": 8, "patch": 2, "width": 16, "blocks": 2}

    def __init__(
        self, *, in_channels: int = 3, out_channels: int = 3, size: int = 32, patch: int = 4, width: int = 128,
        blocks: int = 6,
    ) -> None:  # fmt: skip
        super().__init__()
        if size % patch:
            raise ConfigError(
                f"network 'mlp-mixer': size {size} is no multiple of patch {patch}; choose one that is",
                code="size-indivisible",
            )
        # What the rest of zoo asks a network: channels, the sizes it takes, and what of a condition it reads.
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size, self.size_multiple = size, patch
        self.reads = ()
        self.patch, self.width = patch, width
        self.first = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.time = mlp(width, 2 * width)
        self.blocks = nn.ModuleList(MixerBlock(tokens=(size // patch) ** 2, width=width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, out_channels * patch**2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, in_channels, size, size); time (B,), float32 also where x is bfloat16."""
        told = self.time(timestep_embedding(time, self.width).to(x.dtype))
        h = self.first(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            h = block(h, told)
        patches = self.last(self.norm(h)).transpose(1, 2)
        side = self.size // self.patch
        return F.pixel_shuffle(patches.unflatten(2, (side, side)), self.patch)
