"""The U-Net of the OpenAI family: unconditional, by class, by text, or by a smaller image.

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
| SD's upscaler | in_channels 7, width 256, mult 1 2 2 4, attention_levels 1 2 3, cross_only_levels 1 2, classes 1000 |

Weights of Ho et al. (their own, not of OpenAI's recipe) need `norm_eps: 1e-6`, `downsample_padding: end` and
`time_features: sines-first` too; without them nothing fails and the output is wrong in the third digit.

A score network (Song & Ermon 2019) is this one too, which takes sigma by `time_input: log-sigma-quarter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from zoo.networks import arguments
from zoo.networks.blocks import (
    AttentionBlock,
    Block,
    Downsample,
    Resample,
    ResBlock,
    Upsample,
    call,
    check_told,
    convolution,
    embedding_layers,
    sines_first_embedding,
    timestep_embedding,
    zeroed,
)
from zoo.networks.transformer import BasicTransformerBlock, Context, CrossAttention, KeysValues, SpatialTransformer


class UNet(nn.Module):
    """The OpenAI block layout.

    F(x, time, context, vector, label, level): (B, in_channels, H, W) -> (B, out_channels, H, W). H and W must be
    multiples of patch * 2 ** (levels - 1).

    Args:
        in_channels: with those of a smaller image that is concatenated to x_t. out_channels: twice the sample's with a
            learned variance.
        width: channels of the finest level; mult: multiples of it, one a level; blocks: residual blocks a level.
        stem_width: channels of the first convolution, where they aren't width (ADM at 512x512: half of it).
        attention_levels: levels with attention after each residual block, counted from the finest.
        attention: a `transformer` that reads text, or `plain` self-attention; the latter wants context_width null.
        heads: attention heads, the same everywhere; head_width: instead, channels a head. One of the two is given:
            tensors don't show which, and the wrong one gives a wrong image (SD 1 has 8 heads, SD 2 width 64).
        heads_up: another number of heads on the way up (improved DDPM's `num_heads_upsample`).
        qkv_order: rows of plain attention, `legacy` or `new` (of the published files, ADM at 64x64 alone).
        depth: transformer blocks in each transformer, or a number for each level; the middle has the coarsest level's.
        cross_only_levels: levels whose transformers read the text in both of their attentions (Stable Diffusion's
            upscaler).
        context_width: D of the tokens (B, L, D) that cross-attention reads.
        projection: into and out of each transformer, a 1x1 `conv` (SD 1) or a `linear` layer (SD 2).
        groups: groups of every norm. middle_attention: attention in the middle block.
        scale_shift: time scales and shifts norms (adaptive group normalisation). resblock_updown: residual blocks
            that resample, in place of a convolution (conv_resample) or the bare resampling.
        norm_eps: of every norm but the transformers' own; 1e-5, and 1e-6 in the weights of Ho et al. 2020.
        downsample_padding: zeros on `both` sides of a strided convolution, or at the `end` alone (Ho et al.).
        time_features: `cosines-first` (OpenAI and all that followed), or `sines-first` (Ho et al.).
        vector_width: D of a vector (B, D) that is added to the embedding of time (Stable unCLIP, SDXL).
        guidance_width: of the features of a guidance scale that it takes as an input, where guidance was distilled into
            it (latent consistency models: 256).
        dims: spatial dimensions of a sample: 1 (sound), 2, or 3 (volumes); every level halves all of them.
        classes: how many labels; null_class: one more, for "no class", whose number is `classes`.
        level: whether it takes the level in [0, 1] to which a smaller image is noised (Saharia et al. 2022).
        patch: pixels a side that the first convolution takes as one position, and the last gives back; what is
            learned is the same, at 1 / patch ** 2 of the work (Hoogeboom et al. 2023, section 3.3).
    """

    papers = (
        "2105.05233 Diffusion Models Beat GANs on Image Synthesis",
        "2112.10752 High-Resolution Image Synthesis with Latent Diffusion Models",
    )
    fits = "zoo.networks.arguments:unet"
    adapter_names = "zoo.families.lora.spelling:unet_targets"

    def __init__(
        self, *, in_channels: int = 4, out_channels: int = 4, width: int = 320, mult: Sequence[float] = (1, 2, 4, 4),
        stem_width: int | None = None, blocks: int = 2, attention_levels: Sequence[int] = (0, 1, 2),
        attention: Literal["transformer", "plain"] = "transformer", heads: int | None = None,
        head_width: int | None = None, heads_up: int | None = None, qkv_order: Literal["legacy", "new"] = "legacy",
        depth: int | Sequence[int] = 1, context_width: int | None = 768, cross_only_levels: Sequence[int] = (),
        projection: Literal["conv", "linear"] = "conv",
        groups: int = 32, middle_attention: bool = True, scale_shift: bool = False, resblock_updown: bool = False,
        conv_resample: bool = True, norm_eps: float = 1e-5, downsample_padding: Literal["both", "end"] = "both",
        time_features: Literal["cosines-first", "sines-first"] = "cosines-first", classes: int | None = None,
        null_class: bool = False, vector_width: int | None = None, guidance_width: int | None = None,
        level: bool = False, patch: int = 1, dims: int = 2, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.unet(
            in_channels=in_channels, out_channels=out_channels, width=width, mult=mult, stem_width=stem_width,
            blocks=blocks, attention_levels=attention_levels, attention=attention, heads=heads, head_width=head_width,
            heads_up=heads_up, qkv_order=qkv_order, depth=depth, context_width=context_width,
            cross_only_levels=cross_only_levels, projection=projection, groups=groups,
            middle_attention=middle_attention, norm_eps=norm_eps, downsample_padding=downsample_padding,
            time_features=time_features, classes=classes, null_class=null_class, vector_width=vector_width,
            guidance_width=guidance_width, patch=patch, dims=dims, dropout=dropout,
        )  # fmt: skip
        depths = [depth] * len(mult) if isinstance(depth, int) else list(depth)
        self.in_channels, self.out_channels, self.width, self.classes = in_channels, out_channels, width, classes
        self.patch, self.size_multiple = patch, patch * 2 ** (len(mult) - 1)
        self.dims, self.time_features, self.downsample_padding = dims, time_features, downsample_padding
        self.stem_width = stem = width if stem_width is None else stem_width
        self.checkpointing = False  # True: activations are recomputed in the backward pass
        emb_channels = 4 * width

        def res(inside: int, outside: int, resample: Resample | None = None) -> ResBlock:
            return ResBlock(
                inside, emb_channels, outside, groups=groups, dropout=dropout, scale_shift=scale_shift,
                resample=resample, dims=dims, eps=norm_eps,
            )  # fmt: skip

        def down_from(channels: int) -> nn.Module:
            if resblock_updown:
                return res(channels, channels, "down")
            return Downsample(channels, conv=conv_resample, dims=dims, padding=downsample_padding)

        def up_from(channels: int) -> nn.Module:
            return (
                res(channels, channels, "up") if resblock_updown else Upsample(channels, conv=conv_resample, dims=dims)
            )

        def attend(channels: int, level: int, *, up: bool = False, cross_only: bool = False) -> nn.Module:
            asked = heads_up if up and heads_up is not None else heads
            count = arguments.heads_of(channels, heads=asked, head_width=head_width)
            if context_width is None:
                return AttentionBlock(channels, heads=count, order=qkv_order, groups=groups, eps=norm_eps)
            return SpatialTransformer(
                channels, heads=count, depth=depths[level], context_width=context_width, projection=projection,
                groups=groups, dims=dims, cross_only=cross_only,
            )  # fmt: skip

        self.time_embed = embedding_layers(width, emb_channels)
        self.guidance_width = guidance_width
        self.cond_proj = None if guidance_width is None else nn.Linear(guidance_width, width, bias=False)
        self.label_emb: nn.Module | None = None
        if classes is not None:
            self.label_emb = nn.Embedding(classes + null_class, emb_channels)
        elif vector_width is not None:  # its name and one layer of nesting are SDXL's
            self.label_emb = nn.Sequential(embedding_layers(vector_width, emb_channels))
        self.aug_proj = embedding_layers(width, emb_channels) if level else None
        self.input_blocks = nn.ModuleList([Block(convolution(dims, in_channels * patch**2, stem, 3, padding=1))])
        skips, channels = [stem], stem
        for number, m in enumerate(mult):
            for _ in range(blocks):
                layers: list[nn.Module] = [res(channels, int(m * width))]
                channels = int(m * width)
                if number in attention_levels:
                    layers.append(attend(channels, number, cross_only=number in cross_only_levels))
                self.input_blocks.append(Block(*layers))
                skips.append(channels)
            if number < len(mult) - 1:
                self.input_blocks.append(Block(down_from(channels)))
                skips.append(channels)
        middle = [attend(channels, len(mult) - 1)] if middle_attention else []
        self.middle_block = Block(res(channels, channels), *middle, res(channels, channels))
        self.output_blocks = nn.ModuleList()
        for number, m in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                layers = [res(channels + skips.pop(), int(m * width))]
                channels = int(m * width)
                if number in attention_levels:
                    layers.append(attend(channels, number, up=True, cross_only=number in cross_only_levels))
                if number > 0 and i == blocks:
                    layers.append(up_from(channels))
                self.output_blocks.append(Block(*layers))
        last = zeroed(convolution(dims, channels, out_channels * patch**2, 3, padding=1))
        self.out = nn.Sequential(nn.GroupNorm(groups, channels, eps=norm_eps), nn.SiLU(), last)

        readers = self.readers()
        for place, reader in enumerate(readers):
            reader.place = place
        self.cuts = len(self.input_blocks) - 1  # between how many blocks a step cache can cut
        # The fields of a condition that this network reads.
        self.reads = (
            *(("context", "mask") if readers else ()),
            *(("vector",) if vector_width is not None else ()),
            *(("label",) if classes is not None else ()),
            *(("level",) if level else ()),
            *(("guidance",) if guidance_width is not None else ()),
        )

    def readers(self) -> list[CrossAttention]:
        """The attentions that read text, in their order."""
        blocks = [m for m in self.modules() if isinstance(m, BasicTransformerBlock)]
        return [a for b in blocks for a in ((b.attn1, b.attn2) if b.cross_only else (b.attn2,))]

    def keys_values(self, context: Tensor) -> KeysValues:
        """Keys and values of the context (B, L, D) for `evaluate`: the same at every step, so computed once."""
        return tuple(reader.keys_values(context) for reader in self.readers())

    def embed(
        self, time: Tensor, *, dtype: torch.dtype, label: Tensor | None = None, level: Tensor | None = None,
        vector: Tensor | None = None, guidance: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The embedding for residual blocks (B, 4 width): time, class or vector, and augmentation level, summed.

        A distilled guidance scale is added to the features of time, as 1000 (scale - 1) (Meng et al. 2023; LCM's code).
        """
        sines_first = self.time_features == "sines-first"
        features = (sines_first_embedding if sines_first else timestep_embedding)(time, self.width).to(dtype)
        if self.cond_proj is not None:
            assert guidance is not None  # check_told has checked it
            assert self.guidance_width is not None
            scales = sines_first_embedding(1000.0 * (guidance.float() - 1.0), self.guidance_width)
            features = features + self.cond_proj(scales.to(dtype))
        emb = self.time_embed(features)
        if self.label_emb is not None:
            emb = emb + self.label_emb(label if vector is None else vector)
        if self.aug_proj is not None:
            assert level is not None  # check_told has checked it
            emb = emb + self.aug_proj(timestep_embedding(1000.0 * level.float(), self.width).to(dtype))
        return emb

    def evaluate(
        self, x: Tensor, emb: Tensor, context: Context = None, mask: Tensor | None = None, *, blocks: int = 0,
        deep: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """F under its embedding (B or 1, 4 width), and the features before the last `blocks` blocks.

        With `deep`, such features of another step, only the first and the last `blocks` blocks run (Ma et al. 2024).
        """
        inward, outward = list(self.input_blocks), list(self.output_blocks)
        cut = len(outward) - blocks
        h, skips = x if self.patch == 1 else pixel_unshuffle(x, self.patch), []
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
        out = self.out(h)
        return out if self.patch == 1 else pixel_shuffle(out, self.patch), deep

    def forward(
        self, x: Tensor, time: Tensor, *, context: Tensor | None = None, mask: Tensor | None = None,
        label: Tensor | None = None, level: Tensor | None = None, vector: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """x (B, in_channels, H, W); time (B,) as the weights take it; context (B, L, D); mask (B, L), True = read;
        label (B,) int64; level (B,) in [0, 1]; vector (B, D); guidance (B,), its scale."""
        read = {"label": label, "level": level, "vector": vector, "guidance": guidance}
        check_told("unet", self.reads, {"context": context, "mask": mask, **read})
        emb = self.embed(time, dtype=x.dtype, **read)
        return self.evaluate(x, emb, context, mask)[0]
