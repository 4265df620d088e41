"""Stable Diffusion 1's safety checker: an image near one of its concepts, by CLIP's embedding, is blacked out.

Its weights hold embeddings of 17 concepts and 3 of special care, each with a threshold (Rando et al. 2022, "Red-Teaming
the Stable Diffusion Safety Filter", describe it). An image that is near one of special care is held to thresholds that
are lower by 0.01.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks import arguments
from zoo.networks.clip_vision import ClipVision
from zoo.pipeline.safety import Verdict

STRICTER = 0.01  # where an image is near a concept of special care


class ClipSafety(ClipVision):
    """Refuses images whose cosine to a concept's embedding is above the concept's threshold; the score is by how much.

    Args:
        width, heads, layers, embed_dim, image_size, patch, activation: the tower (ViT-L/14: 1024, 16, 24, 768).
        concepts, special: how many embeddings of each kind the weights hold.
    """

    fits = "zoo.networks.arguments:clip_safety"
    blank = 0.0  # a refused image is black, as the original's

    def __init__(
        self, *, width: int = 1024, heads: int = 16, layers: int = 24, embed_dim: int = 768, image_size: int = 224,
        patch: int = 14, activation: Literal["gelu", "quick-gelu"] = "quick-gelu", concepts: int = 17, special: int = 3,
    ) -> None:  # fmt: skip
        arguments.clip_safety(
            width=width, heads=heads, layers=layers, embed_dim=embed_dim, image_size=image_size, patch=patch,
            activation=activation, concepts=concepts, special=special,
        )  # fmt: skip
        super().__init__(
            width=width, heads=heads, layers=layers, embed_dim=embed_dim, image_size=image_size, patch=patch,
            activation=activation,
        )  # fmt: skip
        self.concept_embeds = nn.Parameter(torch.ones(concepts, embed_dim))
        self.special_care_embeds = nn.Parameter(torch.ones(special, embed_dim))
        self.concept_embeds_weights = nn.Parameter(torch.ones(concepts))
        self.special_care_embeds_weights = nn.Parameter(torch.ones(special))

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Verdict]:
        """images (B, 3, H, W) in [0, 1] -> one verdict an image."""
        embedded = self.embed(images)
        special = self._above(embedded, self.special_care_embeds, self.special_care_embeds_weights)
        concepts = self._above(embedded, self.concept_embeds, self.concept_embeds_weights)
        concepts = concepts + STRICTER * (special > 0).any(dim=1, keepdim=True)
        verdicts = []
        for row in (concepts * 1000).round() / 1000:  # as the original rounds before it compares
            near = (row > 0).nonzero().flatten().tolist()
            reason = f"near concept {', '.join(map(str, near))} of the safety checker" if near else ""
            verdicts.append(Verdict(allowed=not near, reason=reason, score=float(row.max())))
        return verdicts

    @staticmethod
    def _above(embedded: Tensor, concepts: Tensor, thresholds: Tensor) -> Tensor:
        """(B, concepts) by how much each cosine is above its threshold, rounded to three places as the original's."""
        cosines = (F.normalize(embedded) @ F.normalize(concepts).T).float()
        return ((cosines - thresholds.float()) * 1000).round() / 1000
