"""The KL-regularised autoencoder of latent diffusion, in CompVis' layout.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1 and appendix G.
Parameter names and shapes equal the published kl-f4 / kl-f8 files (`encoder.`, `decoder.`, `quant_conv.`,
`post_quant_conv.`), so these load by stripping a prefix. Norms use eps 1e-6 and downsampling pads right and
bottom only; both are invisible in the tensors and change the image when wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoencoders import arguments, rows, tiles


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """GroupNorm with the autoencoder family's eps of 1e-6."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """norm, SiLU, conv, twice, beside a shortcut; (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, with 1x1 convolutions for q, k, v."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(h)


class Downsample(nn.Module):
    """Halve H and W by a strided convolution, padded on the right and the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double H and W by nearest neighbour and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(channels: int, *, groups: int) -> nn.Module:
    middle = nn.Module()
    middle.block_1 = ResnetBlock(channels, channels, groups=groups)
    middle.attn_1 = AttnBlock(channels, groups=groups)
    middle.block_2 = ResnetBlock(channels, channels, groups=groups)
    return middle


def _run_middle(middle: nn.Module, h: Tensor) -> Tensor:
    for name in ("block_1", "attn_1", "block_2"):
        h = getattr(middle, name)(h)
    return h


def _level(blocks: Sequence[nn.Module], attentions: Sequence[nn.Module]) -> nn.Module:
    level = nn.Module()
    level.block = nn.ModuleList(blocks)
    level.attn = nn.ModuleList(attentions)
    return level


def _run_level(level: nn.Module, h: Tensor) -> Tensor:
    attentions = list(level.attn)  # type: ignore[arg-type]
    for i, block in enumerate(level.block):  # type: ignore[arg-type]
        h = block(h)
        if attentions:
            h = attentions[i](h)
    return h


class Encoder(nn.Module):
    """images (B, C, H, W) -> features (B, out, H / f, W / f), f = 2 ** (levels - 1)."""

    def __init__(
        self, *, in_channels: int, out_channels: int, width: int, mult: Sequence[int], blocks: int,
        attention_levels: Sequence[int], groups: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList()
        channels = width
        for i, m in enumerate(mult):
            widths = [channels] + [width * m] * blocks
            level = _level(
                [ResnetBlock(a, b, groups=groups) for a, b in pairwise(widths)],
                [AttnBlock(width * m, groups=groups) for _ in range(blocks)] if i in attention_levels else [],
            )
            channels = width * m
            if i < len(mult) - 1:
                level.downsample = Downsample(channels)
            self.down.append(level)
        self.mid = _middle(channels, groups=groups)
        self.norm_out = group_norm(channels, groups)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = _run_level(level, h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)  # type: ignore[operator]
        return self.conv_out(F.silu(self.norm_out(_run_middle(self.mid, h))))


class Decoder(nn.Module):
    """latents (B, z, h, w) -> images (B, C, h * f, w * f).

    `by` is how: all at once (`whole`), by `rows` with less memory, or by `tiles` with less yet and another image
    (zoo.autoencoders.rows, zoo.autoencoders.tiles).
    """

    by: Literal["whole", "rows", "tiles"] = "whole"

    def __init__(
        self, *, in_channels: int, out_channels: int, width: int, mult: Sequence[int], blocks: int,
        attention_levels: Sequence[int], groups: int,
    ) -> None:  # fmt: skip
        super().__init__()
        channels = width * mult[-1]
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.mid = _middle(channels, groups=groups)
        levels = []
        for i in reversed(range(len(mult))):
            widths = [channels] + [width * mult[i]] * (blocks + 1)
            level = _level(
                [ResnetBlock(a, b, groups=groups) for a, b in pairwise(widths)],
                [AttnBlock(widths[-1], groups=groups) for _ in range(blocks + 1)] if i in attention_levels else [],
            )
            channels = widths[-1]
            if i > 0:
                level.upsample = Upsample(channels)
            levels.insert(0, level)  # CompVis counts levels from the finest, though it runs them coarse to fine
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(channels, groups)
        self.conv_out = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        by = "whole" if z.requires_grad else self.by  # by rows, features are overwritten
        return rows.decode(self, z) if by == "rows" else tiles.decode(self, z) if by == "tiles" else self.whole(z)

    def middle(self, z: Tensor) -> Tensor:
        """Latents -> features of the coarsest level (B, width * mult[-1], h, w)."""
        return _run_middle(self.mid, self.conv_in(z))

    def whole(self, z: Tensor) -> Tensor:
        """All at once: as fast as it gets, with the largest peak of memory."""
        h = self.middle(z)
        for level in reversed(self.up):
            h = _run_level(level, h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)  # type: ignore[operator]
        return self.conv_out(F.silu(self.norm_out(h)))


class AutoencoderKL(nn.Module):
    """The KL autoencoder of latent diffusion, in CompVis' layout: kl-f4, kl-f8, Stable Diffusion's.

    images (B, 3, H, W) in [-1, 1] <-> scaled latents (B, channels, H / factor, W / factor). The encoder
    gives a diagonal Gaussian per position; `encode` returns its mode, or a sample when `noise` (shaped like the
    latents) is given. Latents leave here as `(z - shift) * scale`, so that a denoiser sees about unit variance
    (Rombach et al. 2022, appendix G); `decode` undoes that first.

    Args:
        width: channels at full resolution; mult: multiples of it, one a level (factor = 2 ** (levels - 1)).
        blocks: residual blocks a level of the encoder (the decoder has one more).
        z_channels: channels of the encoder's output and the decoder's input; channels: channels of the latents.
        attention_levels: levels with attention after each block, counted from the finest; the middle always has it.
        groups: groups of every norm.
    """

    papers = ("2112.10752 High-Resolution Image Synthesis with Latent Diffusion Models",)
    fits = "zoo.autoencoders.arguments:kl"
    pictures = True

    def __init__(
        self, *, channels: int = 4, z_channels: int = 4, width: int = 128, mult: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2, attention_levels: Sequence[int] = (), groups: int = 32, image_channels: int = 3,
        scale: float = 1.0, shift: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.kl(
            channels=channels, z_channels=z_channels, width=width, mult=mult, blocks=blocks,
            attention_levels=attention_levels, groups=groups, image_channels=image_channels, scale=scale, shift=shift,
        )  # fmt: skip
        self.channels, self.factor = channels, 2 ** (len(mult) - 1)
        self.scale, self.shift = scale, shift
        self.encoder = Encoder(
            in_channels=image_channels, out_channels=2 * z_channels, width=width, mult=mult, blocks=blocks,
            attention_levels=attention_levels, groups=groups,
        )  # fmt: skip
        self.decoder = Decoder(
            in_channels=z_channels, out_channels=image_channels, width=width, mult=mult, blocks=blocks,
            attention_levels=attention_levels, groups=groups,
        )  # fmt: skip
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, z_channels, 1)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior q(z | image), unscaled, each (B, channels, h, w)."""
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> scaled latents: the posterior's mode, or a sample made with `noise`."""
        mean, log_variance = self.moments(images)
        z = mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise
        return (z - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, channels, h, w) -> images (B, 3, h * factor, w * factor), about [-1, 1], not clipped."""
        return self.decoder(self.post_quant_conv(latents / self.scale + self.shift))

    @torch.no_grad()
    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Fold a per-channel shift and scale (each (channels,)) into the 1x1 convolutions on either side of z.

        Afterwards the latents have mean 0 and deviation 1 a channel and `decode(encode(x))` is unchanged, so the
        weights need no scale or shift beside them.
        """
        n = self.channels
        weight, bias = self.quant_conv.weight, self.quant_conv.bias
        post, post_bias = self.post_quant_conv.weight, self.post_quant_conv.bias
        assert bias is not None
        assert post_bias is not None
        post_bias += (post[:, :, 0, 0] * mean).sum(dim=1)
        post *= std.view(1, n, 1, 1)
        bias[:n] = (bias[:n] - mean) / std
        weight[:n] /= std.view(n, 1, 1, 1)
        bias[n:] -= 2 * torch.log(std)
