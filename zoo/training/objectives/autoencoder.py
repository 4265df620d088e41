"""Training autoencoders: reconstruction of images, and latents that a denoiser can learn.

Rombach et al. 2022, section 3.1 and appendix G; Esser et al. 2021, section 3.1. Reconstruction is L1 or L2 in pixels
and in their gradients, and optionally a perceptual distance; a KL term pulls the posterior lightly to N(0, 1), or a
codebook follows the encoder. An optional patch discriminator is a second network, which the loop steps by its own
optimizer on `adversary_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoencoders.kl import AutoencoderKL
from zoo.autoencoders.vq import AutoencoderVQ
from zoo.data.dataset import Dataset
from zoo.data.pixels import from_uint8, grid, to_uint8
from zoo.schema.ranges import within
from zoo.training.engine.objective import CPU, Batch
from zoo.training.objectives import arguments
from zoo.training.objectives.array_batches import refuse_arrays
from zoo.training.objectives.image_batches import Pictures, check_size
from zoo.training.objectives.patch_gan import PatchDiscriminator, adaptive_weight, hinge


@dataclass(kw_only=True, eq=False)
class _Reconstruction:
    """What both objectives share: |x - x'| + gradient_weight * |grad x - grad x'| + the optional parts."""

    network: Any
    train: Dataset
    validation: Dataset
    pixel: Literal["l1", "l2"] = "l1"
    gradient_weight: float = 1.0
    perceptual_weight: float = 0.0
    perceptual_model: str = "vgg16"
    perceptual_weights: str | None = None
    perceptual_pretrained: bool = True
    adversary_weight: float = 0.0
    adversary_start: int = 0
    adversary_width: int = 64
    adversary_layers: int = 3
    precision: torch.dtype = torch.float32
    device: torch.device = CPU

    def __post_init__(self) -> None:
        refuse_arrays(self.train)
        check_size(self.train.size, self.network)
        self.pictures = Pictures(self.train, self.validation, device=self.device)
        self.rows, self.validation_rows, self.size = len(self.train), len(self.validation), self.train.size
        arguments.reconstruction(
            pixel=self.pixel, gradient_weight=self.gradient_weight, perceptual_weight=self.perceptual_weight,
            adversary_weight=self.adversary_weight, adversary_start=self.adversary_start,
            adversary_width=self.adversary_width, adversary_layers=self.adversary_layers,
        )  # fmt: skip
        self.distance = F.l1_loss if self.pixel == "l1" else F.mse_loss
        self.perceptual: nn.Module | None = None
        if self.perceptual_weight > 0.0:
            from zoo.training.objectives.perceptual import Perceptual  # timm is slow to import

            self.perceptual = Perceptual(
                model=self.perceptual_model, weights=self.perceptual_weights, pretrained=self.perceptual_pretrained
            ).to(self.device)
        self.adversary: PatchDiscriminator | None = None
        if self.adversary_weight > 0.0:
            self.adversary = PatchDiscriminator(width=self.adversary_width, layers=self.adversary_layers)
            self.whole_batch = True  # the adaptive weight is one for all samples of a batch

    def _run(self, network: Any, x: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Images, the scalars of their reconstruction, and the weighted sum of the other terms."""
        raise NotImplementedError

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """The weighted sum; of a validation batch without the adversary's part, which measures nothing."""
        x = self.pictures(batch).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            y, own, rest = self._run(network, x, batch)
        pixel = self.distance(y, x)
        gradient = self.distance(y.diff(dim=2), x.diff(dim=2)) + self.distance(y.diff(dim=3), x.diff(dim=3))
        reconstruction = pixel + self.gradient_weight * gradient
        scalars = {self.pixel: pixel, "gradient": gradient, **own}
        if self.perceptual is not None:
            seen = self.perceptual(x, y)
            reconstruction = reconstruction + self.perceptual_weight * seen
            scalars["perceptual"] = seen
        loss = reconstruction + rest
        if self.adversary is not None and batch.training and self._started(batch) and y.requires_grad:
            fooled = -self.adversary(y).mean()
            weight = adaptive_weight(reconstruction, fooled, network.decoder.conv_out.weight)  # type: ignore[union-attr]
            loss = loss + self.adversary_weight * weight * fooled
            scalars |= {"fooled": fooled, "adaptive_weight": weight}
        return {"loss": loss, **scalars}

    def _started(self, batch: Batch) -> bool:
        return int(batch.samples[0]) // batch.of >= self.adversary_start

    def adversary_loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """What the discriminator minimises, on the same batch; nothing before `adversary_start`."""
        assert self.adversary is not None
        x = self.pictures(batch).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        ):  # fmt: skip
            y, _, _ = self._run(network, x, batch)
        real, drawn = self.adversary(x), self.adversary(y.detach())
        loss = hinge(real, drawn)
        return {"loss": loss if self._started(batch) else 0.0 * loss, "real": real.mean(), "drawn": drawn.mean()}

    def _reconstruct(self, network: Any, images: Tensor) -> Tensor:
        return to_uint8(network.decode(network.encode(from_uint8(images.to(self.device))))).cpu()

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> Tensor:
        """Validation images above their reconstructions, eight a row."""
        x = self.pictures.validation[:: max(1, self.validation_rows // 24)][:24]
        y = self._reconstruct(network, x)
        rows = [part for i in range(0, len(x), 8) for part in (x[i : i + 8], y[i : i + 8])]
        return grid(torch.cat(rows), columns=min(8, len(x)))

    @torch.no_grad()
    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights whose latents have mean 0 and deviation 1 over the training images."""
        assert isinstance(network, AutoencoderKL | AutoencoderVQ)
        latents = torch.cat([network.encode(from_uint8(p.to(self.device))) for p in self.pictures.all().split(64)])
        over = (0, 2, 3)
        network.standardise(latents.mean(over), latents.std(over))
        x = self.pictures.validation
        y = torch.cat([self._reconstruct(network, part) for part in x.split(64)])
        error = (x.float() - y.float()).square().mean(dim=(1, 2, 3)).clamp_min(1e-6)
        psnr = float((10 * torch.log10(255.0**2 / error)).mean())
        facts = {
            "contract": {"channels": network.channels, "factor": network.factor, "size": self.size, "range": [-1, 1]},
            "metrics": {"validation_psnr_db": round(psnr, 2), "validation_pictures": len(x)},
        }
        return network.state_dict(), facts


@dataclass(kw_only=True, eq=False)
class AutoencoderKLObjective(_Reconstruction):
    """Trains a KL autoencoder to reconstruct images.

    Reconstruction + kl_weight * KL(q(z|x) || N(0, 1)), means over elements.

    Args:
        pixel: `l1` or `l2`, of pixels and of their gradients.
        perceptual_weight: 0 leaves it out; perceptual_model: timm's name; perceptual_weights: path of its weights.
        adversary_weight: 0 leaves the discriminator out; adversary_start: the step at which it begins.
    """

    papers = ("2112.10752 High-Resolution Image Synthesis with Latent Diffusion Models",)
    fits = "zoo.training.objectives.arguments:reconstruction"
    trains = "autoencoder"
    reads = ()

    network: AutoencoderKL
    kl_weight: float = 1e-3

    def __post_init__(self) -> None:
        within(0.0, 1e6, {"objective.kl_weight": self.kl_weight})
        super().__post_init__()

    def _run(self, network: Any, x: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        assert isinstance(network, AutoencoderKL)
        side = self.size // network.factor
        mean, log_variance = network.moments(x)
        mean, log_variance = mean.float(), log_variance.float()
        z = mean + torch.exp(0.5 * log_variance) * batch.noise((network.channels, side, side), "posterior")
        y = network.decode((z - network.shift) * network.scale).float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
        return y, {"kl": kl}, self.kl_weight * kl


@dataclass(kw_only=True, eq=False)
class AutoencoderVQObjective(_Reconstruction):
    """Trains a VQ autoencoder to reconstruct images.

    Reconstruction + |sg(z) - e|^2 + commitment_weight * |z - sg(e)|^2 (van den Oord et al. 2017, eq. 3), with the
    gradient of the quantised vectors handed straight to the encoder. The other arguments are the KL objective's.
    """

    papers = (
        "1711.00937 Neural Discrete Representation Learning",
        "2012.09841 Taming Transformers for High-Resolution Image Synthesis",
        "2112.10752 High-Resolution Image Synthesis with Latent Diffusion Models",
    )
    fits = "zoo.training.objectives.arguments:reconstruction"
    trains = "autoencoder"
    reads = ()

    network: AutoencoderVQ
    commitment_weight: float = 0.25

    def __post_init__(self) -> None:
        within(0.0, 1e6, {"objective.commitment_weight": self.commitment_weight})
        super().__post_init__()

    def _run(self, network: Any, x: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        assert isinstance(network, AutoencoderVQ)
        z = network.vectors(x).float()
        indices = network.quantize.indices(z.detach())
        e = network.quantize.lookup(indices).float()
        codebook, commitment = F.mse_loss(e, z.detach()), F.mse_loss(z, e.detach())
        y = network.reconstruct(z + (e - z).detach()).float()
        used = torch.bincount(indices.flatten(), minlength=network.codes).float() / indices.numel()
        # The effective number of codes: exp of the entropy.
        perplexity = torch.exp(-(used * used.clamp_min(1e-10).log()).sum())
        own = {"codebook": codebook, "commitment": commitment, "perplexity": perplexity}
        return y, own, codebook + self.commitment_weight * commitment
