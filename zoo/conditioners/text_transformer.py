"""CLIP's text transformer with open_clip's parameter names and its first weights (Radford et al. 2021, section 2.4).

open_clip's own class is the same to the bit. Importing it takes as long as drawing an image: it brings torchvision,
timm and transformers, which a text tower has no use for.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

__all__ = ["Blocks", "TextTransformer"]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Attention and an MLP, each behind a LayerNorm and added to what it read."""

    def __init__(self, width: int, heads: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        parts = {"c_fc": nn.Linear(width, 4 * width), "gelu": activation(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor, attn_mask: Tensor) -> Tensor:
        """x (B, L, width); attn_mask (L, L), added to the logits."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    """The blocks, under the name that open_clip's parameters have."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(blocks)


class TextTransformer(nn.Module):
    """The parameters of a text tower; `zoo.conditioners.clip_text` runs it.

    embed_dim: columns of the projection, which is left out where None.
    """

    def __init__(
        self, *, width: int, heads: int, layers: int, context_length: int, vocabulary: int, embed_dim: int | None,
        quick: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, width))
        activation = QuickGELU if quick else nn.GELU
        blocks = [Block(width, heads, activation) for _ in range(layers)]
        self.transformer = Blocks(blocks)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = None if embed_dim is None else nn.Parameter(torch.empty(width, embed_dim))
        self._draw(blocks, width)

    def _draw(self, blocks: list[Block], width: int) -> None:
        """First weights, drawn in open_clip's order, so that a seed gives the same."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        added = width**-0.5 * (2 * len(blocks)) ** -0.5  # of what is added to the states, twice a block
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=added)
            nn.init.normal_(block.mlp.get_submodule("c_fc").get_parameter("weight"), std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.get_submodule("c_proj").get_parameter("weight"), std=added)
        if self.text_projection is not None:
            nn.init.normal_(self.text_projection, std=width**-0.5)
