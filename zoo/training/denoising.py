"""Training a denoiser: the regression that diffusion models are (Ho et al. 2020, eq. 14).

x_t = alpha_t * x0 + sigma_t * eps at a random t; the network's output is held to what its parameterization says it
means. The weight of each noise level is min-SNR's (Hang et al. 2023, eq. 8): an error in x0 counts min(SNR, gamma).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.conditioners.clip_text import ClipText
from zoo.data.captions import caption
from zoo.data.image_folder import ImageFolder
from zoo.data.latents import encode_all
from zoo.data.pictures import grid, to_uint8
from zoo.denoiser import Denoiser
from zoo.guidance.classifier_free import ClassifierFree
from zoo.noise import AddressedNoise, bound
from zoo.samplers.ddim import DDIM
from zoo.training.objective import CPU, Batch
from zoo.types import Autoencoder, Condition


class Denoising:
    """Trains a denoiser on the latents of a frozen autoencoder, told captions through a frozen conditioner.

    Args:
        min_snr: gamma; None weighs every x0 error by SNR, as eps training does.
        condition_dropout: share of captions replaced by the empty one, which guidance needs (Ho & Salimans 2022).
        guidance, sheet_steps, sheet_prompts: of the sample sheet only; without prompts it shows validation captions.
    """

    def __init__(
        self, *, network: Denoiser, autoencoder: Autoencoder, conditioner: ClipText, train: ImageFolder,
        validation: ImageFolder, cache: Path, min_snr: float | None = 5.0, condition_dropout: float = 0.1,
        keep_caption: float = 0.6, guidance: float = 4.0, sheet_steps: int = 25, sheet_prompts: Sequence[str] = (),
        precision: torch.dtype = torch.float32, device: torch.device = CPU,
    ) -> None:  # fmt: skip
        self.device, self.network = device, network
        self.autoencoder, self.conditioner = autoencoder, conditioner
        self.train, self.validation = train, validation
        self.latents = encode_all(autoencoder, train, cache=cache)
        self.validation_latents = encode_all(autoencoder, validation, cache=cache)
        self.rows, self.validation_rows = len(train), len(validation)
        self.min_snr, self.condition_dropout, self.keep_caption = min_snr, condition_dropout, keep_caption
        shown = validation.rows[:: max(1, len(validation) // 16)][:16]
        self.sheet_prompts = list(sheet_prompts) or [row["text"] for row in shown]
        self.guidance, self.sheet_steps, self.precision = guidance, sheet_steps, precision

    def _captions(self, batch: Batch) -> list[str]:
        if not batch.training:
            return [self.validation.rows[i]["text"] for i in batch.rows]
        dropped = batch.uniform("condition-dropout") < self.condition_dropout
        draws = batch.draw("caption")
        return [
            "" if drop else caption(self.train.rows[i], g, keep=self.keep_caption)
            for i, g, drop in zip(batch.rows, draws, dropped, strict=True)
        ]

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Weighted squared error of the network's output, and `x0`, the plain squared error of the x0 it implies."""
        assert isinstance(network, Denoiser)
        x0 = batch.take(self.latents if batch.training else self.validation_latents)
        eps = batch.noise(tuple(x0.shape[1:]), "eps")
        points = network.schedule.T
        assert points is not None
        # Stratified over the batch: each sample's t falls in its own share of [0, 1), which evens the loss out.
        place = (np.arange(len(x0)) + batch.uniform("t")) / len(x0)
        t = (np.floor(place * points) + 1) / points
        alpha, sigma = (torch.from_numpy(a).float().view(-1, 1, 1, 1).to(self.device) for a in network.schedule(t))
        x_t = alpha * x0 + sigma * eps
        with torch.no_grad():
            cond = self.conditioner.states(self.conditioner.tokenize(self._captions(batch)))[0]
        time = torch.tensor([network.time_input(float(value)) for value in t], device=self.device)
        x_in = x_t.contiguous(memory_format=torch.channels_last)
        # For a few dozen positions plain matrix products train a fifth faster on a CPU than its fused attention.
        with (
            torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
            sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext(),
        ):
            output = network.network(x_in, time, context=cond).float()
        error = (output - network.parameterization.target(x0, eps, alpha, sigma)).square()
        c_out = network.parameterization(alpha, sigma).c_out
        c_out_squared = torch.as_tensor(c_out).square()
        snr = (alpha / sigma).square()
        weight = (snr if self.min_snr is None else snr.clamp(max=self.min_snr)) * c_out_squared
        return {"loss": (weight * error).mean(), "output": error.mean(), "x0": (c_out_squared * error).mean()}

    @torch.no_grad()
    def draw(self, network: Denoiser, prompts: list[str], *, seed: int = 0) -> Tensor:
        """Prompts -> uint8 (B, 3, H, W) by guided DDIM."""
        sampler = DDIM(steps=self.sheet_steps, eta=0.0)
        table = sampler.plan(network.schedule)
        cond = Condition(tokens=self.conditioner(prompts).tokens)
        null = Condition(tokens=self.conditioner.null(len(prompts)).tokens)
        denoise = network.bind(cond, table)
        denoise = ClassifierFree(scale=self.guidance).wrap(denoise, denoiser=network, cond=cond, null=null, table=table)
        shape, samples = tuple(self.latents.shape[1:]), range(len(prompts))
        source = AddressedNoise(seed)
        x = table.start.sigma * source(shape, purpose="start", samples=samples).to(self.device)
        steps = bound(source, shape=shape, samples=samples, device=self.device)
        return to_uint8(self.autoencoder.decode(sampler(denoise, table, x, noise=steps))).cpu()

    def sheet(self, network: nn.Module) -> Tensor:
        """The sheet's prompts, drawn from fixed noise by the averaged weights, eight a row."""
        assert isinstance(network, Denoiser)
        return grid(self.draw(network, self.sheet_prompts), columns=8)

    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The U-Net's weights alone; the card says how they are read."""
        assert isinstance(network, Denoiser)
        shape = self.latents.shape
        contract = {
            "in_channels": shape[1], "out_channels": shape[1], "size": shape[-1],
            "size_multiple": network.network.size_multiple, "context_width": self.conditioner.width,
        }  # fmt: skip
        return network.network.state_dict(), {"contract": contract}
