"""The transformer inside latent diffusion's U-Net: self-attention, cross-attention to the text, gated feed-forward.

Rombach et al. 2022, section 3.3 and appendix E.2.1. Names and shapes equal Stable Diffusion's files. A block that is
`cross_only` reads the text in both of its attentions: so do the fine levels of Stable Diffusion's upscaler.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

# The text as a network reads it: its tokens (B, L, D), or the keys and values that each of its readers made of them.
KeysValues = tuple[tuple[Tensor, Tensor], ...]
Context = Tensor | KeysValues | None


class CrossAttention(nn.Module):
    """Multi-head attention of x (B, N, D) to context (B, L, D'), or to itself where context is None.

    `place` is its number among those of a network that read text: where it finds its keys and values if they were
    computed before, once for all steps (`zoo.diffusion.denoiser`).
    """

    place = 0

    def __init__(self, width: int, *, heads: int, context_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context_width or width, width, bias=False)
        self.to_v = nn.Linear(context_width or width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))  # the dropout keeps the published names

    def _split(self, h: Tensor) -> Tensor:
        return h.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, L, D / heads) of the context."""
        return self._split(self.to_k(context)), self._split(self.to_v(context))

    def forward(self, x: Tensor, context: Context = None, mask: Tensor | None = None) -> Tensor:
        q = self._split(self.to_q(x))
        if isinstance(context, tuple):
            k, v = context[self.place]
        else:
            k, v = self.keys_values(x if context is None else context)
        allowed = None if mask is None else mask[:, None, None, :]
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.to_out(h.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """Linear layer gated by GELU (Shazeer 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """Two linear layers, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each after a norm and beside a shortcut."""

    def __init__(self, width: int, *, heads: int, context_width: int, cross_only: bool = False) -> None:
        super().__init__()
        self.cross_only = cross_only
        self.attn1 = CrossAttention(width, heads=heads, context_width=context_width if cross_only else None)
        self.ff = FeedForward(width)
        self.attn2 = CrossAttention(width, heads=heads, context_width=context_width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def begin_as_identity(self) -> None:
        """Zero its branches' last layers, so that a block added to trained ones leaves their output as it is."""
        for layer in (self.attn1.to_out[0], self.attn2.to_out[0], self.ff.net[2]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Context, mask: Tensor | None) -> Tensor:
        x = x + (self.attn1(self.norm1(x), context, mask) if self.cross_only else self.attn1(self.norm1(x)))
        x = x + self.attn2(self.norm2(x), context, mask)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of (B, C, *spatial), reading context (B, L, D)."""

    def __init__(
        self, channels: int, *, heads: int, depth: int, context_width: int, projection: Literal["conv", "linear"],
        groups: int, dims: int = 2, cross_only: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.linear = projection == "linear"
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)  # this family's norms differ: 1e-6 here, 1e-5 in ResBlock
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        self.proj_in = nn.Linear(channels, channels) if self.linear else conv(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(channels, heads=heads, context_width=context_width, cross_only=cross_only)
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels) if self.linear else conv(channels, channels, 1)
        for parameter in self.proj_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Context, mask: Tensor | None) -> Tensor:
        positions, channels_first = x.shape[2:], x.is_contiguous()

        # Tokens lie one after the other, and the image as it came: sums of tensors laid out differently are slow.
        def to_tokens(h: Tensor) -> Tensor:
            return h.flatten(2).transpose(1, 2).contiguous()

        def to_image(h: Tensor) -> Tensor:
            h = h.transpose(1, 2)
            return (h.contiguous() if channels_first else h).unflatten(2, positions)

        h = self.norm(x)
        h = self.proj_in(to_tokens(h)) if self.linear else to_tokens(self.proj_in(h))
        for block in self.transformer_blocks:
            h = block(h, context, mask)
        return x + (to_image(self.proj_out(h)) if self.linear else self.proj_out(to_image(h)))
