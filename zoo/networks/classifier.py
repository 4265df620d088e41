"""The noise-aware classifier: the U-Net's way down, and a pool over what is left.

Dhariwal & Nichol 2021, section 4: trained on x_t at every t, its gradient grad_x log p(y | x_t) guides a denoiser
(zoo.guidance.classifier). Names and shapes equal ADM's published classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.networks import arguments
from zoo.networks.blocks import (
    AttentionBlock,
    Block,
    Downsample,
    Resample,
    ResBlock,
    attend,
    call,
    convolution,
    embedding_layers,
    timestep_embedding,
    zeroed,
)
from zoo.schema.errors import UsageError


class AttentionPool(nn.Module):
    """(B, C, H, W) -> (B, out): what the mean of all positions reads when it attends to them (Radford et al. 2021)."""

    def __init__(self, positions: int, channels: int, out: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, positions + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = torch.cat([x.mean(dim=2, keepdim=True), x], dim=2) + self.positional_embedding.to(x.dtype)
        # Whatever the order in the network's blocks, here it is the new one (ADM's published classifiers).
        return self.c_proj(attend(self.qkv_proj(x), heads=self.heads, order="new"))[:, :, 0]


class NoiseAwareClassifier(nn.Module):
    """F(x_t, time) -> logits: (B, in_channels, size, size) -> (B, classes).

    Args:
        classes: how many it distinguishes. size: pixels a side; attention pool has a place for each position.
        width, mult, stem_width, blocks, attention_levels, heads, head_width, qkv_order, scale_shift, resblock_updown,
            conv_resample, groups, dims: as in the U-Net (zoo.networks.unet); ADM's have head_width 64 and both
            switches on.
        pool: `attention`, or the `mean` over positions, which takes any size.
    """

    papers = ("2105.05233 Diffusion Models Beat GANs on Image Synthesis",)
    fits = "zoo.networks.arguments:classifier"
    alone = "classification"
    reads = ()  # the class is its output

    def __init__(
        self, *, classes: int, size: int, in_channels: int = 3, width: int = 128, mult: Sequence[float] = (1, 2, 3, 4),
        stem_width: int | None = None, blocks: int = 2, attention_levels: Sequence[int] = (1, 2, 3),
        heads: int | None = None, head_width: int | None = None, qkv_order: Literal["legacy", "new"] = "legacy",
        pool: Literal["attention", "mean"] = "attention", scale_shift: bool = True, resblock_updown: bool = True,
        conv_resample: bool = True, groups: int = 32, dims: int = 2, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.classifier(
            classes=classes, size=size, in_channels=in_channels, width=width, mult=mult, stem_width=stem_width,
            blocks=blocks, attention_levels=attention_levels, heads=heads, head_width=head_width, qkv_order=qkv_order,
            pool=pool, groups=groups, dims=dims, dropout=dropout,
        )  # fmt: skip
        stem = width if stem_width is None else stem_width
        self.in_channels, self.width, self.classes, self.size, self.pool = in_channels, width, classes, size, pool
        self.size_multiple, self.dims = 2 ** (len(mult) - 1), dims
        self.checkpointing = False  # True: activations are recomputed in the backward pass
        emb_channels = 4 * width

        def res(inside: int, outside: int, resample: Resample | None = None) -> ResBlock:
            return ResBlock(
                inside, emb_channels, outside, groups=groups, dropout=dropout, scale_shift=scale_shift,
                resample=resample, dims=dims,
            )  # fmt: skip

        def counted(channels: int) -> int:
            return arguments.heads_of(channels, heads=heads, head_width=head_width)

        def attention(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, heads=counted(channels), order=qkv_order, groups=groups)

        self.time_embed = embedding_layers(width, emb_channels)
        self.input_blocks = nn.ModuleList([Block(convolution(dims, in_channels, stem, 3, padding=1))])
        channels = stem
        for number, m in enumerate(mult):
            for _ in range(blocks):
                layers: list[nn.Module] = [res(channels, int(m * width))]
                channels = int(m * width)
                if number in attention_levels:
                    layers.append(attention(channels))
                self.input_blocks.append(Block(*layers))
            if number < len(mult) - 1:
                plain = Downsample(channels, conv=conv_resample, dims=dims)
                self.input_blocks.append(Block(res(channels, channels, "down") if resblock_updown else plain))
        self.middle_block = Block(res(channels, channels), attention(channels), res(channels, channels))
        end: list[nn.Module] = [nn.GroupNorm(groups, channels), nn.SiLU()]
        if pool == "attention":
            positions = (size // self.size_multiple) ** dims
            end.append(AttentionPool(positions, channels, classes, heads=counted(channels)))
        else:
            pool_over = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 1]
            end += [pool_over(1), zeroed(convolution(dims, channels, classes, 1)), nn.Flatten()]
        self.out = nn.Sequential(*end)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, in_channels, H, W) as a denoiser sees it; time (B,) as the denoiser's network takes it."""
        if self.pool == "attention" and tuple(x.shape[2:]) != (self.size,) * self.dims:
            raise UsageError(
                f"network 'classifier' pools samples of {'x'.join([str(self.size)] * self.dims)} and is given "
                f"{'x'.join(str(n) for n in reversed(x.shape[2:]))}; use that size, or one trained with pool: mean",
                code="size-untrained",
            )
        emb = self.time_embed(timestep_embedding(time, self.width).to(x.dtype))
        for block in self.input_blocks:
            x = call(block, x, emb, recompute=self.checkpointing)
        return self.out(call(self.middle_block, x, emb, recompute=self.checkpointing))
