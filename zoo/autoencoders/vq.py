"""The vector-quantised autoencoder of latent diffusion, in CompVis' layout.

van den Oord et al. 2017; Esser et al. 2021 (VQGAN), section 3.1; Rombach et al. 2022, section 3.1. Encoder and decoder
are those of the KL autoencoder, the encoder without the variance; between them each position's vector is replaced by
the nearest row of a codebook:

    z_q = argmin_e |z - e|^2

In latent diffusion the quantiser belongs to the decoder: a denoiser's latents are continuous, and `decode` quantises
them. Names and shapes equal the published vq-f4 / vq-f8 files (`quantize.embedding.weight` beside the KL family's).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.autoencoders import arguments
from zoo.autoencoders.kl import Decoder, Encoder


class Codebook(nn.Module):
    """(B, D, h, w) -> the nearest of `entries` vectors at each position, with its number."""

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(entries, width)
        nn.init.uniform_(self.embedding.weight, -1.0 / entries, 1.0 / entries)

    def indices(self, z: Tensor) -> Tensor:
        """(B, h, w) int64: which entry is nearest."""
        rows = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        e = self.embedding.weight
        # |z|^2 is the same for all entries; float32 at least, since the two others nearly cancel.
        wide = torch.promote_types(rows.dtype, torch.float32)
        distance = e.to(wide).square().sum(dim=1) - 2.0 * rows.to(wide) @ e.to(wide).T
        return distance.argmin(dim=1).view(z.shape[0], *z.shape[2:])

    def lookup(self, indices: Tensor) -> Tensor:
        """(B, h, w) -> (B, D, h, w)."""
        return self.embedding(indices).permute(0, 3, 1, 2)

    def forward(self, z: Tensor) -> Tensor:
        """The quantised z, differentiable with respect to the codebook alone."""
        return self.lookup(self.indices(z.detach()))


class AutoencoderVQ(nn.Module):
    """The VQ autoencoder of latent diffusion, in CompVis' layout: vq-f4, vq-f8.

    images (B, 3, H, W) in [-1, 1] <-> scaled latents (B, channels, H / factor, W / factor). `encode` gives vectors that
    aren't quantised yet, as `(z - shift) * scale`; `decode` undoes that, quantises and decodes.

    Args:
        codes: entries of the codebook, each of `channels` numbers. The others are the KL autoencoder's.
    """

    papers = (
        "1711.00937 Neural Discrete Representation Learning",
        "2012.09841 Taming Transformers for High-Resolution Image Synthesis",
        "2112.10752 High-Resolution Image Synthesis with Latent Diffusion Models",
    )
    fits = "zoo.autoencoders.arguments:vq"
    pictures = True

    def __init__(
        self, *, channels: int = 3, z_channels: int = 3, codes: int = 8192, width: int = 128,
        mult: Sequence[int] = (1, 2, 4), blocks: int = 2, attention_levels: Sequence[int] = (), groups: int = 32,
        image_channels: int = 3, scale: float = 1.0, shift: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.vq(
            channels=channels, z_channels=z_channels, codes=codes, width=width, mult=mult, blocks=blocks,
            attention_levels=attention_levels, groups=groups, image_channels=image_channels, scale=scale, shift=shift,
        )  # fmt: skip
        self.channels, self.factor, self.codes = channels, 2 ** (len(mult) - 1), codes
        self.scale, self.shift = scale, shift
        self.encoder = Encoder(
            in_channels=image_channels, out_channels=z_channels, width=width, mult=mult, blocks=blocks,
            attention_levels=attention_levels, groups=groups,
        )  # fmt: skip
        self.decoder = Decoder(
            in_channels=z_channels, out_channels=image_channels, width=width, mult=mult, blocks=blocks,
            attention_levels=attention_levels, groups=groups,
        )  # fmt: skip
        self.quantize = Codebook(codes, channels)
        self.quant_conv = nn.Conv2d(z_channels, channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, z_channels, 1)

    def vectors(self, images: Tensor) -> Tensor:
        """What is quantised, unscaled: (B, channels, h, w)."""
        return self.quant_conv(self.encoder(images))

    def reconstruct(self, quantised: Tensor) -> Tensor:
        """Quantised, unscaled vectors -> images."""
        return self.decoder(self.post_quant_conv(quantised))

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """images (B, 3, H, W) in [-1, 1] -> scaled latents, not quantised; `noise` is accepted and not used."""
        return (self.vectors(images) - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, channels, h, w) -> images (B, 3, h * factor, w * factor), about [-1, 1], not clipped."""
        return self.reconstruct(self.quantize(latents / self.scale + self.shift).to(latents.dtype))

    @torch.no_grad()
    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Fold a per-channel shift and one scale into the weights, so that latents have mean 0 and deviation 1 overall.

        `mean` and `std` are (channels,); the scale is the root mean square of `std`, the same for all channels: another
        for each would change which entry is nearest.
        """
        one = std.square().mean().sqrt()
        assert self.quant_conv.bias is not None
        assert self.post_quant_conv.bias is not None
        self.post_quant_conv.bias += self.post_quant_conv.weight[:, :, 0, 0] @ mean
        self.post_quant_conv.weight *= one
        self.quant_conv.bias.copy_((self.quant_conv.bias - mean) / one)
        self.quant_conv.weight /= one
        self.quantize.embedding.weight.copy_((self.quantize.embedding.weight - mean) / one)
