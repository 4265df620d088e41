"""Imagen's Efficient U-Net: a super-resolution network with its weight and work at low resolutions.

Saharia et al. 2022, appendix B.1, against the U-Net of OpenAI's layout:

- residual blocks are counted by level, few where pixels are many and more where they are few;
- a level is halved before its convolutions and doubled after them, so that only the first and the last
  convolutions run at full resolution;
- skips are scaled by 1 / sqrt 2, and one leaves each level.

The first convolution's output joins before the last one, scaled likewise: a narrow network could not carry the noise
of every pixel, which it needs to remove it, through a level of half the size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.networks import arguments
from zoo.networks.blocks import (
    AttentionBlock,
    ResBlock,
    Upsample,
    call,
    check_told,
    embedding_layers,
    timestep_embedding,
    zeroed,
)
from zoo.networks.transformer import Context, CrossAttention, KeysValues

SKIP_SCALE = 1.0 / math.sqrt(2.0)


class TextAttention(nn.Module):
    """Cross-attention of the positions of (B, C, H, W) to text (B, L, D), beside a shortcut."""

    def __init__(self, channels: int, *, heads: int, context_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.context_norm = nn.LayerNorm(context_width)
        self.attention = CrossAttention(channels, heads=heads, context_width=context_width)
        zeroed(self.attention.to_out[0])

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the context, normed as here."""
        return self.attention.keys_values(self.context_norm(context))

    def forward(self, x: Tensor, context: Context, mask: Tensor | None) -> Tensor:
        h = self.norm(x).flatten(2).transpose(1, 2)
        h = self.attention(h, context if isinstance(context, tuple) else self.context_norm(context), mask)
        return x + h.transpose(1, 2).unflatten(2, x.shape[2:])


class Level(nn.Module):
    """One level's way down or up: resampled before (down) or after (up) its residual blocks and attention."""

    def __init__(
        self, *, before: nn.Module | None, blocks: Sequence[ResBlock], attention: AttentionBlock | None,
        text: TextAttention | None, after: nn.Module | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.before, self.after = before, after
        self.blocks = nn.ModuleList(blocks)
        self.attention, self.text = attention, text

    def forward(self, x: Tensor, emb: Tensor, context: Context, mask: Tensor | None) -> Tensor:
        x = x if self.before is None else self.before(x)
        for block in self.blocks:
            x = block(x, emb)
        x = x if self.attention is None else self.attention(x)
        if self.text is not None:
            assert context is not None  # check_told has checked it
            x = self.text(x, context, mask)
        return x if self.after is None else self.after(x)


class EfficientUNet(nn.Module):
    """F(x, time, context, vector, label, level): (B, in_channels, H, W) -> (B, out_channels, H, W).

    H and W must be multiples of 2 ** levels: the finest level already is at half the image's size.

    Args:
        in_channels: 6 with the smaller image, enlarged, beside x_t; 3 without.
        width: channels at full resolution; mult: multiples of it, one a level, finest first.
        blocks: residual blocks of each level on its way down, and as many on its way up.
        attention_levels: levels with self-attention. text_levels: levels with cross-attention to text (B, L,
            context_width). head_width: channels of an attention head.
        vector_width: D of a pooled embedding (B, D) that is added to the time's.
        classes: how many labels; null_class: one more, for "no class", whose number is `classes`.
        level: whether it takes the level in [0, 1] to which the smaller image is noised.
        scale_shift: time scales and shifts norms. groups: groups of every norm.
    """

    papers = ("2205.11487 Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",)
    fits = "zoo.networks.arguments:efficient_unet"
    dims = 2  # images only

    def __init__(
        self, *, in_channels: int = 6, out_channels: int = 3, width: int = 128, mult: Sequence[int] = (1, 2, 4, 8),
        blocks: Sequence[int] = (2, 4, 8, 8), attention_levels: Sequence[int] = (3,), text_levels: Sequence[int] = (),
        head_width: int = 64, context_width: int | None = None, vector_width: int | None = None,
        classes: int | None = None, null_class: bool = False, level: bool = True, scale_shift: bool = True,
        groups: int = 32, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.efficient_unet(
            in_channels=in_channels, out_channels=out_channels, width=width, mult=mult, blocks=blocks,
            attention_levels=attention_levels, text_levels=text_levels, head_width=head_width,
            context_width=context_width, vector_width=vector_width, classes=classes, null_class=null_class,
            groups=groups, dropout=dropout,
        )  # fmt: skip
        self.in_channels, self.out_channels, self.width, self.classes = in_channels, out_channels, width, classes
        self.size_multiple = 2 ** len(mult)
        self.checkpointing = False  # True: activations are recomputed in the backward pass
        emb_channels = 4 * width

        def half(number: int, first: int, *, before: nn.Module | None, after: nn.Module | None) -> Level:
            channels = mult[number] * width

            def res(inside: int) -> ResBlock:
                return ResBlock(inside, emb_channels, channels, groups=groups, dropout=dropout, scale_shift=scale_shift)

            heads, attention, text = 0, None, None
            if number in attention_levels or number in text_levels:
                heads = arguments.heads_of(channels, heads=None, head_width=head_width)
            if number in attention_levels:
                attention = AttentionBlock(channels, heads=heads, groups=groups)
            if number in text_levels and context_width is not None:
                text = TextAttention(channels, heads=heads, context_width=context_width, groups=groups)
            return Level(
                before=before, blocks=[res(first)] + [res(channels) for _ in range(blocks[number] - 1)],
                attention=attention, text=text, after=after,
            )  # fmt: skip

        self.time_embed = embedding_layers(width, emb_channels)
        self.label_emb = None if classes is None else nn.Embedding(classes + null_class, emb_channels)
        self.aug_proj = embedding_layers(width, emb_channels) if level else None
        self.vector_proj = None if vector_width is None else embedding_layers(vector_width, emb_channels)
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        wide = [width, *(m * width for m in mult)]
        self.down = nn.ModuleList(
            half(i, wide[i + 1], before=nn.Conv2d(wide[i], wide[i + 1], 3, stride=2, padding=1), after=None)
            for i in range(len(mult))
        )
        # The coarsest level's way up continues from its way down; a skip would only repeat it.
        self.up = nn.ModuleList(
            half(
                i, wide[i + 1] if i == len(mult) - 1 else 2 * wide[i + 1], before=None,
                after=Upsample(wide[i + 1], out_channels=wide[i]),
            )
            for i in reversed(range(len(mult)))
        )  # fmt: skip
        self.out = nn.Sequential(
            nn.GroupNorm(groups, 2 * width), nn.SiLU(), zeroed(nn.Conv2d(2 * width, out_channels, 3, padding=1))
        )
        for place, reader in enumerate(self.readers()):
            reader.attention.place = place
        self.cuts = len(mult) - 1  # between how many levels a step cache can cut
        # The fields of a condition that this network reads.
        self.reads = (
            *(("context", "mask") if text_levels else ()),
            *(("vector",) if vector_width is not None else ()),
            *(("label",) if classes is not None else ()),
            *(("level",) if level else ()),
        )

    def readers(self) -> list[TextAttention]:
        """The layers that read text, in their order."""
        return [m for m in self.modules() if isinstance(m, TextAttention)]

    def keys_values(self, context: Tensor) -> KeysValues:
        """Keys and values of the context (B, L, D) for `evaluate`: the same at every step, so computed once."""
        return tuple(reader.keys_values(context) for reader in self.readers())

    def embed(
        self, time: Tensor, *, dtype: torch.dtype, label: Tensor | None = None, level: Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The embedding for residual blocks (B, 4 width): time, pooled text, class and augmentation level, summed."""
        emb = self.time_embed(timestep_embedding(time, self.width).to(dtype))
        if self.vector_proj is not None:
            emb = emb + self.vector_proj(vector)
        if self.label_emb is not None:
            emb = emb + self.label_emb(label)
        if self.aug_proj is not None:
            assert level is not None  # check_told has checked it
            emb = emb + self.aug_proj(timestep_embedding(1000.0 * level.float(), self.width).to(dtype))
        return emb

    def evaluate(
        self, x: Tensor, emb: Tensor, context: Context = None, mask: Tensor | None = None, *, blocks: int = 0,
        deep: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """F under its embedding (B or 1, 4 width), and the features before the last `blocks` levels.

        With `deep`, such features of another step, only the first and the last `blocks` levels run (Ma et al. 2024).
        """
        inward, outward = list(self.down), list(self.up)
        cut = len(outward) - blocks
        first = h = self.first(x)
        skips = []
        for part in inward if deep is None else inward[:blocks]:
            h = call(part, h, emb, context, mask, recompute=self.checkpointing)
            skips.append(h)
        if deep is None:
            h = skips.pop()
            for number, part in enumerate(outward[:cut]):
                if number > 0:
                    h = torch.cat([h, SKIP_SCALE * skips.pop()], dim=1)
                h = call(part, h, emb, context, mask, recompute=self.checkpointing)
            deep = h
        h = deep
        for part in outward[cut:]:
            h = torch.cat([h, SKIP_SCALE * skips.pop()], dim=1)
            h = call(part, h, emb, context, mask, recompute=self.checkpointing)
        return self.out(torch.cat([h, SKIP_SCALE * first], dim=1)), deep

    def forward(
        self, x: Tensor, time: Tensor, *, context: Tensor | None = None, mask: Tensor | None = None,
        vector: Tensor | None = None, label: Tensor | None = None, level: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, in_channels, H, W); time (B,) as the weights take it; context (B, L, D); mask (B, L), True = read;
        vector (B, D); label (B,) int64; level (B,) in [0, 1]."""
        check_told(
            "efficient-unet", self.reads,
            {"context": context, "mask": mask, "vector": vector, "label": label, "level": level},
        )  # fmt: skip
        emb = self.embed(time, dtype=x.dtype, label=label, level=level, vector=vector)
        return self.evaluate(x, emb, context, mask)[0]
