"""Training a KL autoencoder: L1 and gradient reconstruction, and a light pull of the posterior to N(0, 1).

Rombach et al. 2022, appendix G, without their perceptual and adversarial losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoencoders.kl import AutoencoderKL
from zoo.data.image_folder import ImageFolder
from zoo.data.pictures import from_uint8, grid, to_uint8
from zoo.training.objective import CPU, Batch


class AutoencoderKLObjective:
    """Trains a KL autoencoder to give pictures back.

    |x - x'| + gradient_weight * |grad x - grad x'| + kl_weight * KL(q(z|x) || N(0, 1)), means over elements."""

    def __init__(
        self, *, network: AutoencoderKL, train: ImageFolder, validation: ImageFolder, kl_weight: float = 1e-3,
        gradient_weight: float = 1.0, precision: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ) -> None:  # fmt: skip
        self.device = device
        self.network, self.kl_weight, self.gradient_weight = network, kl_weight, gradient_weight
        self.images, self.validation_images = torch.from_numpy(train.images()), torch.from_numpy(validation.images())
        self.rows, self.validation_rows = len(self.images), len(self.validation_images)
        self.size, self.precision = train.size, precision

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Reconstruction through a posterior sample."""
        assert isinstance(network, AutoencoderKL)
        source = self.images if batch.training else self.validation_images
        x = from_uint8(batch.take(source)).contiguous(memory_format=torch.channels_last)
        side = self.size // network.factor
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            mean, log_variance = network.moments(x)
            mean, log_variance = mean.float(), log_variance.float()
            z = mean + torch.exp(0.5 * log_variance) * batch.noise((network.channels, side, side), "posterior")
            y = network.decode((z - network.shift) * network.scale).float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        pixel = F.l1_loss(y, x)
        gradient = F.l1_loss(y.diff(dim=2), x.diff(dim=2)) + F.l1_loss(y.diff(dim=3), x.diff(dim=3))
        loss = pixel + self.gradient_weight * gradient + self.kl_weight * kl
        return {"loss": loss, "l1": pixel, "gradient": gradient, "kl": kl}

    def _reconstruct(self, network: AutoencoderKL, images: Tensor) -> Tensor:
        return to_uint8(network.decode(network.encode(from_uint8(images.to(self.device))))).cpu()

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> Tensor:
        """Validation pictures above their reconstructions, eight a row."""
        assert isinstance(network, AutoencoderKL)
        x = self.validation_images[:: max(1, self.validation_rows // 24)][:24]
        y = self._reconstruct(network, x)
        rows = [part for i in range(0, len(x), 8) for part in (x[i : i + 8], y[i : i + 8])]
        return grid(torch.cat(rows), columns=8)

    @torch.no_grad()
    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights whose latents have mean 0 and deviation 1 a channel over the training pictures."""
        assert isinstance(network, AutoencoderKL)
        latents = torch.cat([network.encode(from_uint8(p.to(self.device))) for p in self.images.split(64)])
        over = (0, 2, 3)
        network.standardise(latents.mean(over), latents.std(over))
        x = self.validation_images
        y = torch.cat([self._reconstruct(network, part) for part in x.split(64)])
        error = (x.float() - y.float()).square().mean(dim=(1, 2, 3)).clamp_min(1e-6)
        psnr = float((10 * torch.log10(255.0**2 / error)).mean())
        facts = {
            "contract": {"channels": network.channels, "factor": network.factor, "size": self.size, "range": [-1, 1]},
            "metrics": {"validation_psnr_db": round(psnr, 2), "validation_pictures": len(x)},
        }
        return network.state_dict(), facts
