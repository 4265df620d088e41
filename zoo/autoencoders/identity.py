"""The autoencoder of pixel-space diffusion, and of signals and volumes: latents are the samples themselves."""

from __future__ import annotations

from torch import Tensor, nn

from zoo.autoencoders import arguments


class Identity(nn.Module):
    """No autoencoder: diffusion on the pixels themselves. images (B, C, H, W) in [-1, 1] are their own latents.

    Arrays (B, C, *spatial) are, too.
    """

    fits = "zoo.autoencoders.arguments:identity"
    default = True
    weightless = True
    factor = 1

    def __init__(self, *, channels: int = 3) -> None:
        super().__init__()
        arguments.identity(channels=channels)
        self.channels = channels

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return `images` unchanged; `noise` is accepted and not used."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """Return `latents` unchanged."""
        return latents
