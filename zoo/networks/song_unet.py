"""DDPM++ and NCSN++ of Song et al. 2021b (appendix H), as Karras et al. 2022 (appendix F) rebuilt them for EDM.

Against the U-Net of OpenAI's layout: sums are scaled by sqrt 1/2, resampling goes through a filter, attention has one
head, and NCSN++ embeds noise in random frequencies and passes the image down the encoder beside its features. The
names `map_layer0`, `enc`, `dec` and every shape equal EDM's published files, so these load by stripping `model.`;
blocks are named by the size that they see in training, `resolution` and its halves.

What the papers call it, in this network's arguments:

| network | arguments |
|---|---|
| DDPM++, EDM's `vp` for CIFAR-10 | the defaults |
| NCSN++, EDM's `ve` for CIFAR-10 | embedding fourier, noise_mult 2, encoder residual, resample_filter 1 3 3 1 |
| either one for 64x64 faces | resolution 64, mult 1 2 2 2, attention_levels 2 |
| Song et al.'s NCSN++ for 256x256 | encoder skip, decoder skip |

EDM's files were trained with augmentation (augment_width 9), by class also with classes 10. They take the noise by
`time_input: log-sigma-quarter` under schedule and parameterization `edm`. Song et al.'s own files go through
`zoo.families.score_sde.layout`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.networks import arguments
from zoo.networks.blocks import Resample, call, check_told, sines_first_embedding

NAME = "song-unet"
HALF_SCALE = math.sqrt(0.5)
NEARLY_ZERO = 1e-5  # of Xavier's weights, where a branch starts near zero
FOURIER_SCALE = 16.0  # deviation of the random frequencies (Song et al. 2021b, appendix H)


class FourierFeatures(nn.Module):
    """Sines and cosines of a number times random frequencies (Tancik et al. 2020): time (B,) -> (B, width)."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # Weights learn to read these, so they are kept with them; a file in half precision holds them exactly.
        self.register_buffer("freqs", (FOURIER_SCALE * torch.randn(width // 2)).half().float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourierFeatures:
        """As every module's, but for half precision, in which a frequency of 40 would be another one."""
        kept = self.freqs
        super()._apply(fn, recurse)
        if self.freqs.dtype in (torch.float16, torch.bfloat16):
            self.freqs = kept.to(self.freqs.device)
        return self

    def forward(self, time: Tensor) -> Tensor:
        angles = time.float()[:, None] * (2.0 * math.pi * self.freqs.float())[None]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Filtered(nn.Module):
    """H and W halved or doubled through a filter: (B, C, H, W) -> (B, C, H/2, W/2) or (B, C, 2H, 2W)."""

    resample_filter: Tensor

    def __init__(self, way: Resample, taps: Sequence[float]) -> None:
        super().__init__()
        self.way: Resample = way
        self.register_buffer("resample_filter", square(taps))

    def forward(self, x: Tensor) -> Tensor:
        return resampled(x, self.resample_filter, self.way, margin=margin(self.resample_filter))


class FilteredConv(nn.Conv2d):
    """The same, and a convolution after it; `first`: before it, in a border wide enough for both."""

    resample_filter: Tensor

    def __init__(
        self, inside: int, outside: int, size: int, *, way: Resample, taps: Sequence[float], first: bool = False
    ) -> None:
        filter = square(taps)
        super().__init__(inside, outside, size, padding=size // 2 + (margin(filter) if first else 0))
        self.way: Resample = way
        self.first = first
        self.register_buffer("resample_filter", filter)

    def forward(self, input: Tensor) -> Tensor:
        if self.first:
            return resampled(super().forward(input), self.resample_filter, self.way, margin=0)
        x = resampled(input, self.resample_filter, self.way, margin=margin(self.resample_filter))
        return super().forward(x)


def square(taps: Sequence[float]) -> Tensor:
    """The filter (1, 1, k, k) of taps in both directions, which keeps the mean."""
    row = torch.tensor(taps, dtype=torch.float32)
    return (torch.outer(row, row) / row.sum().square())[None, None]


def margin(filter: Tensor) -> int:
    """How far an even filter reaches over the border, so that halving halves."""
    return (filter.shape[-1] - 1) // 2


def resampled(x: Tensor, filter: Tensor, way: Resample, *, margin: int) -> Tensor:
    """Each channel through the filter: every second value of that, or zeros put between before."""
    channels = x.shape[1]
    weight = filter.expand(channels, -1, -1, -1)
    if way == "down":
        return F.conv2d(x, weight, stride=2, padding=margin, groups=channels)
    return F.conv_transpose2d(x, 4.0 * weight, stride=2, padding=margin, groups=channels)


def group_norm(channels: int, *, eps: float) -> nn.GroupNorm:
    """Groups of four channels or more, at most 32 of them."""
    return nn.GroupNorm(arguments.song_groups(channels), channels, eps=eps)


class SongBlock(nn.Module):
    """Residual block conditioned on the noise, with attention: (B, in, H, W) and emb (B, D) -> (B, out, H', W').

    scale: of each sum of a branch and its shortcut. way: both are halved or doubled on the way in.
    """

    def __init__(
        self, channels: int, out_channels: int, *, emb_channels: int, taps: Sequence[float], heads: int | None = None,
        way: Resample | None = None, scale: float, eps: float, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()

        def conv(inside: int, size: int) -> nn.Conv2d:
            if way is None:
                return nn.Conv2d(inside, out_channels, size, padding=size // 2)
            return FilteredConv(inside, out_channels, size, way=way, taps=taps)

        self.heads, self.scale = heads, scale
        self.norm0 = group_norm(channels, eps=eps)
        self.conv0 = conv(channels, 3)
        self.affine = nn.Linear(emb_channels, out_channels)
        self.norm1 = group_norm(out_channels, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = None if channels == out_channels and way is None else conv(channels, 1)
        if heads is not None:
            self.norm2 = group_norm(out_channels, eps=eps)
            self.qkv = nn.Conv2d(out_channels, 3 * out_channels, 1)
            self.proj = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x))) + self.affine(emb)[:, :, None, None]
        h = self.conv1(self.dropout(F.silu(self.norm1(h))))
        x = self.scale * (h + (x if self.skip is None else self.skip(x)))
        if self.heads is None:
            return x
        rows = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (self.heads, -1, 3))  # [head][channel][q, k, v]
        q, k, v = rows.transpose(2, 4).unbind(3)  # (B, heads, H W, channels)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(x.shape)
        return self.scale * (self.proj(h) + x)


class SongUNet(nn.Module):
    """DDPM++ and NCSN++, the networks of score SDE and EDM.

    F(x, time, label): (B, in_channels, H, W) -> (B, out_channels, H, W). H and W must be multiples of
    2 ** (levels - 1).

    Args:
        width: channels of the finest level before mult; mult: multiples of it, one a level; blocks: residual blocks a
            level.
        resolution: H and W in training, by which tensors are named; the network takes other sizes.
        attention_levels: levels with attention, counted from the finest: after each block on the way down, after the
            last on the way up. The middle always has it. heads: of each.
        embedding: of the noise, in `positional` (fixed) or `fourier` (random) frequencies.
        noise_mult: how many widths of them. emb_mult: how many widths of the embedding that residual blocks read.
        encoder: `standard`; `residual` or `skip` also pass the image down, halved, and add it to features: by a
            convolution of what was added before, or of the image itself.
        decoder: `standard`, one output from the finest level; `skip`, one from each, doubled and added up.
        resample_filter: taps of the filter of all resampling: `1 1`, the mean and the nearest neighbour, or `1 3 3 1`.
        skip_scale: of every sum in a residual block, sqrt 1/2. norm_eps: of every norm.
        classes: how many labels; null_class: the label numbered `classes` means none of them.
        augment_width: how many numbers of a training image's augmentation it was conditioned on. Samples have
            none, so these weights are kept and not used.
    """

    papers = (
        "2011.13456 Score-Based Generative Modeling through Stochastic Differential Equations",
        "2206.00364 Elucidating the Design Space of Diffusion-Based Generative Models",
    )
    fits = "zoo.networks.arguments:song_unet"

    def __init__(
        self, *, in_channels: int = 3, out_channels: int = 3, width: int = 128, mult: Sequence[int] = (2, 2, 2),
        blocks: int = 4, resolution: int = 32, attention_levels: Sequence[int] = (1,), heads: int = 1,
        embedding: Literal["positional", "fourier"] = "positional", noise_mult: int = 1, emb_mult: int = 4,
        encoder: Literal["standard", "residual", "skip"] = "standard",
        decoder: Literal["standard", "skip"] = "standard", resample_filter: Sequence[float] = (1, 1),
        skip_scale: float = 0.7071067811865476, norm_eps: float = 1e-6,
        classes: int | None = None, null_class: bool = False, augment_width: int | None = None, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.song_unet(
            in_channels=in_channels, out_channels=out_channels, width=width, mult=mult, blocks=blocks,
            resolution=resolution, attention_levels=attention_levels, heads=heads, embedding=embedding,
            noise_mult=noise_mult, emb_mult=emb_mult, encoder=encoder, decoder=decoder,
            resample_filter=resample_filter, skip_scale=skip_scale, norm_eps=norm_eps, classes=classes,
            null_class=null_class, augment_width=augment_width, dropout=dropout,
        )  # fmt: skip
        taps = list(resample_filter)
        self.in_channels, self.out_channels, self.classes = in_channels, out_channels, classes
        self.width, self.blocks, self.null_class = width, blocks, null_class
        self.encoder, self.decoder = encoder, decoder
        self.size_multiple = 2 ** (len(mult) - 1)
        self.sides = [f"{resolution >> level}x{resolution >> level}" for level in range(len(mult))]
        self.checkpointing = False  # True: activations are recomputed in the backward pass
        self.reads = () if classes is None else ("label",)
        self.noise_channels, emb_channels = noise_mult * width, emb_mult * width

        def block(
            inside: int, outside: int, *, attention: bool = False, way: Literal["down", "up"] | None = None
        ) -> SongBlock:
            count = arguments.heads_of(outside, heads=heads, head_width=None) if attention else None
            return SongBlock(
                inside, outside, emb_channels=emb_channels, taps=taps, heads=count, way=way, scale=skip_scale,
                eps=norm_eps, dropout=dropout,
            )  # fmt: skip

        self.map_noise = FourierFeatures(self.noise_channels) if embedding == "fourier" else None
        self.map_label = None if classes is None else nn.Linear(classes, self.noise_channels)
        self.map_augment = None
        if augment_width is not None:
            self.map_augment = nn.Linear(augment_width, self.noise_channels, bias=False).requires_grad_(False)
        self.map_layer0 = nn.Linear(self.noise_channels, emb_channels)
        self.map_layer1 = nn.Linear(emb_channels, emb_channels)

        self.enc = nn.ModuleDict()
        skips, channels, handed = [], width, in_channels
        for level, (side, m) in enumerate(zip(self.sides, mult, strict=True)):
            if level == 0:
                self.enc[f"{side}_conv"] = nn.Conv2d(in_channels, width, 3, padding=1)
            else:
                self.enc[f"{side}_down"] = block(channels, channels, way="down")
                if encoder == "skip":
                    self.enc[f"{side}_aux_down"] = Filtered("down", taps)
                    self.enc[f"{side}_aux_skip"] = nn.Conv2d(handed, channels, 1)
                elif encoder == "residual":
                    self.enc[f"{side}_aux_residual"] = FilteredConv(
                        handed, channels, 3, way="down", taps=taps, first=True
                    )
                    handed = channels
            skips.append(channels)
            for i in range(blocks):
                self.enc[f"{side}_block{i}"] = block(channels, m * width, attention=level in attention_levels)
                channels = m * width
                skips.append(channels)

        self.dec = nn.ModuleDict()
        last = len(mult) - 1
        for level, (side, m) in reversed(list(enumerate(zip(self.sides, mult, strict=True)))):
            if level == last:
                self.dec[f"{side}_in0"] = block(channels, channels, attention=True)
                self.dec[f"{side}_in1"] = block(channels, channels)
            else:
                self.dec[f"{side}_up"] = block(channels, channels, way="up")
            for i in range(blocks + 1):
                attention = i == blocks and level in attention_levels
                self.dec[f"{side}_block{i}"] = block(channels + skips.pop(), m * width, attention=attention)
                channels = m * width
            if decoder == "skip" or level == 0:
                if level < last and decoder == "skip":
                    self.dec[f"{side}_aux_up"] = Filtered("up", taps)
                self.dec[f"{side}_aux_norm"] = group_norm(channels, eps=norm_eps)
                self.dec[f"{side}_aux_conv"] = nn.Conv2d(channels, out_channels, 3, padding=1)
        self._draw_weights()

    def _draw_weights(self) -> None:
        """Xavier's uniform weights; branches start near zero, and attention small."""
        for name, module in self.named_modules():
            if not isinstance(module, (nn.Conv2d, nn.Linear)):
                continue
            leaf = name.rpartition(".")[2]
            faint = leaf in ("conv1", "proj") or leaf.endswith("aux_conv")
            nn.init.xavier_uniform_(module.weight, gain=NEARLY_ZERO if faint else 0.2**0.5 if leaf == "qkv" else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def embed(self, time: Tensor, *, dtype: torch.dtype, label: Tensor | None = None) -> Tensor:
        """The embedding that residual blocks read (B, emb_mult width): noise and class."""
        if self.map_noise is None:
            emb = sines_first_embedding(time, self.noise_channels).to(dtype)
        else:
            emb = self.map_noise(time).to(dtype)
        if self.map_label is not None and self.classes is not None:
            assert label is not None  # check_told has checked it
            # A one-hot label of unit variance, sqrt(classes) at its place, takes one column of the weights.
            columns = math.sqrt(self.classes) * self.map_label.weight.T
            columns = F.pad(columns, (0, 0, 0, 1)) if self.null_class else columns
            emb = emb + F.embedding(label, columns) + self.map_label.bias
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

    def forward(self, x: Tensor, time: Tensor, *, label: Tensor | None = None) -> Tensor:
        """x (B, in_channels, H, W); time (B,) as the weights take it; label (B,) int64."""
        check_told(NAME, self.reads, {"label": label})
        emb = self.embed(time, dtype=x.dtype, label=label)

        def run(part: Any, h: Tensor) -> Tensor:
            return call(part, h, emb, recompute=self.checkpointing)

        h, handed, skips = x, x, []
        for level, side in enumerate(self.sides):
            if level == 0:
                h = self.enc[f"{side}_conv"](h)
            else:
                h = run(self.enc[f"{side}_down"], h)
                if self.encoder == "skip":
                    handed = self.enc[f"{side}_aux_down"](handed)
                    h = h + self.enc[f"{side}_aux_skip"](handed)
                elif self.encoder == "residual":
                    h = handed = HALF_SCALE * (h + self.enc[f"{side}_aux_residual"](handed))
            skips.append(h)
            for i in range(self.blocks):
                h = run(self.enc[f"{side}_block{i}"], h)
                skips.append(h)
        out = None
        for level, side in reversed(list(enumerate(self.sides))):
            if level == len(self.sides) - 1:
                h = run(self.dec[f"{side}_in1"], run(self.dec[f"{side}_in0"], h))
            else:
                h = run(self.dec[f"{side}_up"], h)
            for i in range(self.blocks + 1):
                h = run(self.dec[f"{side}_block{i}"], torch.cat([h, skips.pop()], dim=1))
            if self.decoder == "skip" or level == 0:
                drawn = self.dec[f"{side}_aux_conv"](F.silu(self.dec[f"{side}_aux_norm"](h)))
                out = drawn if out is None else drawn + self.dec[f"{side}_aux_up"](out)
        assert out is not None  # the finest level always gives an output
        return out
