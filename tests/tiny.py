"""A tiny latent pipeline with random weights, made in a blink: what tests of the machinery draw with."""

from __future__ import annotations

import torch
from torch import nn

from zoo.autoencoders.kl import AutoencoderKL
from zoo.denoiser import Denoiser
from zoo.guidance.classifier_free import ClassifierFree
from zoo.networks.unet import UNet
from zoo.parameterization import V
from zoo.pipeline import Pipeline, Stage
from zoo.samplers.ddim import DDIM
from zoo.schedules import CosineSchedule
from zoo.types import Condition

WIDTH = 16


class LetterCounts(nn.Module):
    """A conditioner without words: tokens that depend on the prompt's letters."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.table = nn.Parameter(torch.randn(128, WIDTH, generator=generator))

    def forward(self, prompts: list[str]) -> Condition:
        rows = [[ord(c) % 128 for c in p.ljust(6)[:6]] for p in prompts]
        return Condition(tokens=self.table[torch.tensor(rows)], vector=self.table[torch.tensor(rows)].sum(1))

    def null(self, batch: int) -> Condition:
        return self([""] * batch)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Draws for every parameter, so that layers which start at zero take part."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = 0.3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1) * 0.5
    return module.eval().requires_grad_(False)


def tiny_unet() -> UNet:
    return UNet(
        in_channels=4, out_channels=4, width=8, mult=(1, 2), blocks=1, attention_levels=(1,), heads=2,
        context_width=WIDTH, groups=4,
    )  # fmt: skip


def tiny_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(channels=4, z_channels=4, width=8, mult=(1, 2, 2), blocks=1, groups=4)


def tiny_pipeline(*, steps: int = 4, eta: float = 0.0, **arguments: object) -> Pipeline:
    """32x32 pictures in a few milliseconds."""
    denoiser = Denoiser(network=randomise(tiny_unet(), 1), schedule=CosineSchedule(), parameterization=V())
    stage = Stage(
        name="base", denoiser=denoiser, autoencoder=randomise(tiny_autoencoder(), 2),  # type: ignore[arg-type]
        sampler=DDIM(steps=steps, eta=eta), guidance=(ClassifierFree(scale=3.0),), listens=("text",), size=32,
    )  # fmt: skip
    return Pipeline(conditioners={"text": LetterCounts().requires_grad_(False)}, stages=[stage], **arguments)  # type: ignore[arg-type]
