"""An image's CLIP embedding, noised to a level that the network is told: the vector of Stable unCLIP.

Ramesh et al. 2022 draw from an image's embedding; Stability's networks read it beside a level of noise s, so that they
also draw from embeddings that a prior made:

    vector = (mean + deviation * (alpha_s * z + sigma_s * eps), features of s),    z = (embedding - mean) / deviation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.conditioners import arguments
from zoo.diffusion.types import Condition, NoiseSchedule
from zoo.networks.blocks import timestep_embedding
from zoo.networks.clip_vision import ClipVision


class ClipImage(ClipVision):
    """A call's image -> Condition(vector (B, 2 embed_dim)): its embedding, noised, and features of the noise's level.

    Args:
        schedule: what a level means (Stable unCLIP: cosine).
        level: index of the noise on that schedule, whose number the network is told; 0 is the least.
        width, heads, layers, embed_dim, image_size, patch, activation: the tower (ViT-H/14: 1280, 16, 32, 1024).
    """

    papers = ("2204.06125 Hierarchical Text-Conditional Image Generation with CLIP Latents",)
    fits = "zoo.conditioners.arguments:clip_image"
    source = "image"
    halves = 2  # the embedding and, as wide, its level's features
    fills: ClassVar[Mapping[str, Sequence[str]]] = {"vector": ("halves", "embed_dim")}

    def __init__(
        self, *, schedule: NoiseSchedule, level: int = 0, width: int = 1280, heads: int = 16, layers: int = 32,
        embed_dim: int = 1024, image_size: int = 224, patch: int = 14,
        activation: Literal["gelu", "quick-gelu"] = "gelu",
    ) -> None:  # fmt: skip
        arguments.clip_image(
            level=level, width=width, heads=heads, layers=layers, embed_dim=embed_dim, image_size=image_size,
            patch=patch, activation=activation,
        )  # fmt: skip
        super().__init__(
            width=width, heads=heads, layers=layers, embed_dim=embed_dim, image_size=image_size, patch=patch,
            activation=activation,
        )  # fmt: skip
        self.schedule, self.level = schedule, level
        self.mean, self.std = nn.Parameter(torch.zeros(1, embed_dim)), nn.Parameter(torch.ones(1, embed_dim))

    @property
    def noise_shape(self) -> tuple[int]:
        """Of the noise that each image's embedding needs."""
        return (self.embed_dim,)

    def forward(self, images: Sequence[Tensor], eps: Tensor) -> Condition:
        """images (3, H, W) in [-1, 1], eps (B, embed_dim) standard normal -> the condition."""
        z = (self.embed(torch.stack(list(images)) * 0.5 + 0.5) - self.mean) / self.std
        alpha, sigma = self.schedule((self.level + 1) / (self.schedule.T or 1000))
        noised = (float(alpha) * z + float(sigma) * eps.to(z)) * self.std + self.mean
        level = torch.full((len(z),), float(self.level), device=z.device)
        return Condition(vector=torch.cat([noised, timestep_embedding(level, self.embed_dim).to(z)], dim=1))

    def null(self, batch: int) -> Condition:
        """Zeros, for the level too."""
        return Condition(vector=self.mean.new_zeros(batch, 2 * self.embed_dim))
