"""The U-Net of the OpenAI family: unconditional, by class, by text, or of a smaller picture.

Ho et al. 2020 (appendix B), Nichol & Dhariwal 2021, Dhariwal & Nichol 2021 (section 3) and, with the cross-attention
transformer, Rombach et al. 2022 (section 3.3). The names `time_embed`, `label_emb`, `input_blocks`, `middle_block`,
`output_blocks`, `out` and every shape equal the published files, so these load by stripping a prefix.

What the papers call it, in this network's arguments (resolution 32, where levels are 32, 16, 8, 4):

| network | arguments |
|---|---|
| Ho et al. 2020, CIFAR-10 | width 128, mult 1 2 2 2, attention plain at level 1, heads 1, dropout 0.1 |
| improved DDPM | width 128, mult 1 2 2 2, blocks 3, attention plain at 1 2, heads 4, scale_shift, out_channels 6 |
| ADM | attention plain, head_width 64, scale_shift, resblock_updown, out_channels 6, classes |
| Stable Diffusion 1 | the defaults with heads 8 |

A score network (Song & Ermon 2019) is this one too, told sigma by `time_input: log-sigma-quarter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from zoo.errors import ConfigError
from zoo.networks.blocks import (
    AttentionBlock,
    Block,
    Downsample,
    Resample,
    ResBlock,
    Upsample,
    call,
    check_shape,
    check_told,
    embedding_layers,
    heads_of,
    timestep_embedding,
    zeroed,
)
from zoo.networks.transformer import BasicTransformerBlock, Context, KeysValues, SpatialTransformer


class UNet(nn.Module):
    """The OpenAI block layout.

    F(x, time, context, label, level): (B, in_channels, H, W) -> (B, out_channels, H, W). H and W must be
    multiples of patch * 2 ** (levels - 1).

    Args:
        in_channels: with those of a smaller picture that is joined to x_t. out_channels: twice the sample's with a
            learned variance.
        width: channels of the finest level; mult: multiples of it, one a level; blocks: residual blocks a level.
        attention_levels: levels with attention after each residual block, counted from the finest.
        attention: a `transformer` that reads text, or `plain` self-attention; the latter wants context_width null.
        heads: attention heads, the same everywhere; head_width: instead, channels a head. One of the two is given:
            tensors don't show which, and the wrong one gives the wrong picture (SD 1 has 8 heads, SD 2 width 64).
        heads_up: another number of heads on the way up (improved DDPM's `num_heads_upsample`).
        qkv_order: rows of plain attention, `legacy` or `new` (of the published files, ADM at 64x64 alone).
        depth: transformer blocks in each transformer, or a number for each level; the middle has the coarsest level's.
        context_width: D of the tokens (B, L, D) that cross-attention reads.
        projection: into and out of each transformer, a 1x1 `conv` (SD 1) or a `linear` layer (SD 2).
        groups: groups of every norm. middle_attention: attention in the middle block.
        scale_shift: time scales and shifts norms (adaptive group normalisation). resblock_updown: residual blocks
            that resample, in place of a convolution (conv_resample) or the bare resampling.
        classes: how many labels it knows; null_class: one more, for "no class", whose number is `classes`.
        level: is told the level in [0, 1] to which a smaller picture is noised (Saharia et al. 2022).
        vector_width: D of a vector (B, D) that is added to the time's embedding (SDXL: pooled text and sizes).
        patch: pixels a side that the first convolution takes as one position, and the last gives back; what is
            learned is the same, at 1 / patch ** 2 of the work (Hoogeboom et al. 2023, section 3.3).
    """

    def __init__(
        self, *, in_channels: int = 4, out_channels: int = 4, width: int = 320, mult: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2, attention_levels: Sequence[int] = (0, 1, 2),
        attention: Literal["transformer", "plain"] = "transformer", heads: int | None = None,
        head_width: int | None = None, heads_up: int | None = None, qkv_order: Literal["legacy", "new"] = "legacy",
        depth: int | Sequence[int] = 1, context_width: int | None = 768, projection: Literal["conv", "linear"] = "conv",
        groups: int = 32, middle_attention: bool = True, scale_shift: bool = False, resblock_updown: bool = False,
        conv_resample: bool = True, classes: int | None = None, null_class: bool = False, level: bool = False,
        vector_width: int | None = None, patch: int = 1, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        check_shape(
            "unet", width=width, mult=mult, groups=groups, levels={"attention_levels": attention_levels},
            classes=classes, null_class=null_class,
            numbers={
                "in_channels": in_channels, "out_channels": out_channels, "blocks": blocks, "patch": patch,
                **{f"depth {d}": d for d in ((depth,) if isinstance(depth, int) else depth)},
            },
        )  # fmt: skip
        depths = [depth] * len(mult) if isinstance(depth, int) else list(depth)
        if len(depths) != len(mult):
            raise ConfigError(
                f"network 'unet': depth is {depths}; give one number, or one for each of {len(mult)} levels"
            )
        if vector_width is not None and classes is not None:
            raise ConfigError("network 'unet': classes and vector_width share a place in the file; give one of them")
        if attention not in ("transformer", "plain"):
            raise ConfigError(f"network 'unet': attention is '{attention}'; choose transformer or plain")
        if qkv_order not in ("legacy", "new"):
            raise ConfigError(f"network 'unet': qkv_order is '{qkv_order}'; choose legacy or new")
        if attention == "plain" and context_width is not None:
            raise ConfigError("network 'unet': plain attention reads no text; write context_width: null")
        if attention == "transformer" and context_width is None:
            raise ConfigError("network 'unet': a transformer reads text; give context_width, or attention: plain")
        if heads_up is not None and (attention != "plain" or heads is None):
            raise ConfigError("network 'unet': heads_up goes with attention: plain and heads; take it out")
        self.in_channels, self.out_channels, self.width, self.classes = in_channels, out_channels, width, classes
        self.patch, self.size_multiple = patch, patch * 2 ** (len(mult) - 1)
        self.checkpointing = False  # True: activations are worked out again on the way back, and not kept
        emb_channels = 4 * width

        def res(inside: int, outside: int, resample: Resample | None = None) -> ResBlock:
            return ResBlock(
                inside, emb_channels, outside, groups=groups, dropout=dropout, scale_shift=scale_shift,
                resample=resample,
            )  # fmt: skip

        def attend(channels: int, level: int, *, up: bool = False) -> nn.Module:
            asked = heads_up if up and heads_up is not None else heads
            count = heads_of(channels, heads=asked, head_width=head_width, network="unet")
            if context_width is None:
                return AttentionBlock(channels, heads=count, order=qkv_order, groups=groups)
            return SpatialTransformer(
                channels, heads=count, depth=depths[level], context_width=context_width, projection=projection,
                groups=groups,
            )  # fmt: skip

        self.time_embed = embedding_layers(width, emb_channels)
        self.label_emb: nn.Module | None = None
        if classes is not None:
            self.label_emb = nn.Embedding(classes + null_class, emb_channels)
        elif vector_width is not None:  # its name and one layer of nesting are SDXL's
            self.label_emb = nn.Sequential(embedding_layers(vector_width, emb_channels))
        self.aug_proj = embedding_layers(width, emb_channels) if level else None
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(in_channels * patch**2, width, 3, padding=1))])
        skips, channels = [width], width
        for number, m in enumerate(mult):
            for _ in range(blocks):
                layers: list[nn.Module] = [res(channels, m * width)]
                channels = m * width
                if number in attention_levels:
                    layers.append(attend(channels, number))
                self.input_blocks.append(Block(*layers))
                skips.append(channels)
            if number < len(mult) - 1:
                down = res(channels, channels, "down") if resblock_updown else Downsample(channels, conv=conv_resample)
                self.input_blocks.append(Block(down))
                skips.append(channels)
        middle = [attend(channels, len(mult) - 1)] if middle_attention else []
        self.middle_block = Block(res(channels, channels), *middle, res(channels, channels))
        self.output_blocks = nn.ModuleList()
        for number, m in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                layers = [res(channels + skips.pop(), m * width)]
                channels = m * width
                if number in attention_levels:
                    layers.append(attend(channels, number, up=True))
                if number > 0 and i == blocks:
                    up = res(channels, channels, "up") if resblock_updown else Upsample(channels, conv=conv_resample)
                    layers.append(up)
                self.output_blocks.append(Block(*layers))
        last = zeroed(nn.Conv2d(channels, out_channels * patch**2, 3, padding=1))
        self.out = nn.Sequential(nn.GroupNorm(groups, channels), nn.SiLU(), last)

        readers = self.readers()
        for place, block in enumerate(readers):
            block.attn2.place = place
        self.cuts = len(self.input_blocks) - 1  # between how many blocks a step cache can cut
        # What of a condition this network listens to.
        self.reads = (
            *(("context", "mask") if readers else ()),
            *(("vector",) if vector_width is not None else ()),
            *(("label",) if classes is not None else ()),
            *(("level",) if level else ()),
        )

    def readers(self) -> list[BasicTransformerBlock]:
        """The blocks that read text, in their order."""
        return [m for m in self.modules() if isinstance(m, BasicTransformerBlock)]

    def keys_values(self, context: Tensor) -> KeysValues:
        """What stands for the context (B, L, D) in `evaluate`: the same at every step, so it is made once."""
        return tuple(block.attn2.keys_values(context) for block in self.readers())

    def embed(
        self, time: Tensor, *, dtype: torch.dtype, label: Tensor | None = None, level: Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """What residual blocks are told (B, 4 width): time, class or vector, and augmentation level, added up."""
        emb = self.time_embed(timestep_embedding(time, self.width).to(dtype))
        if self.label_emb is not None:
            emb = emb + self.label_emb(label if vector is None else vector)
        if self.aug_proj is not None:
            assert level is not None  # check_told saw to it
            emb = emb + self.aug_proj(timestep_embedding(1000.0 * level.float(), self.width).to(dtype))
        return emb

    def evaluate(
        self, x: Tensor, emb: Tensor, context: Context = None, mask: Tensor | None = None, *, blocks: int = 0,
        deep: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """F told its embedding (B or 1, 4 width), and the features before the last `blocks` blocks.

        With `deep`, such features of another step, only the first and the last `blocks` blocks run (Ma et al. 2024).
        """
        inward, outward = list(self.input_blocks), list(self.output_blocks)
        cut = len(outward) - blocks
        h, skips = pixel_unshuffle(x, self.patch), []
        for block in inward if deep is None else inward[:blocks]:
            h = call(block, h, emb, context, mask, recompute=self.checkpointing)
            skips.append(h)
        if deep is None:
            h = call(self.middle_block, h, emb, context, mask, recompute=self.checkpointing)
            for block in outward[:cut]:
                h = call(block, torch.cat([h, skips.pop()], dim=1), emb, context, mask, recompute=self.checkpointing)
            deep = h
        h = deep
        for block in outward[cut:]:
            h = call(block, torch.cat([h, skips.pop()], dim=1), emb, context, mask, recompute=self.checkpointing)
        return pixel_shuffle(self.out(h), self.patch), deep

    def forward(
        self, x: Tensor, time: Tensor, *, context: Tensor | None = None, mask: Tensor | None = None,
        label: Tensor | None = None, level: Tensor | None = None, vector: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, in_channels, H, W); time (B,) as the weights know it; context (B, L, D); mask (B, L), True = read;
        label (B,) int64; level (B,) in [0, 1]; vector (B, D)."""
        check_told(
            "unet", self.reads, {"context": context, "mask": mask, "label": label, "level": level, "vector": vector}
        )
        emb = self.embed(time, dtype=x.dtype, label=label, level=level, vector=vector)
        return self.evaluate(x, emb, context, mask)[0]
