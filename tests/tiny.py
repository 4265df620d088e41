"""Tiny pipelines with random weights, made in a blink: what tests of the machinery draw with."""

from __future__ import annotations

import torch
from torch import nn

from zoo.autoencoders.identity import Identity
from zoo.autoencoders.kl import AutoencoderKL
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.low_res import GaussianAugmentation
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Condition
from zoo.guidance.classifier_free import ClassifierFree
from zoo.guidance.threshold import StaticThreshold
from zoo.images.space import Images
from zoo.networks.unet import UNet, timestep_embedding
from zoo.pipeline.pipeline import Pipeline, Stage
from zoo.samplers.ddim import DDIM

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
        sampler=DDIM(steps=steps, eta=eta), guidance=(ClassifierFree(scale=3.0),), listens=("text",), space=Images(32),
    )  # fmt: skip
    return Pipeline(conditioners={"text": LetterCounts().requires_grad_(False)}, stages=[stage], **arguments)  # type: ignore[arg-type]


class TinyNet(nn.Module):
    """The smallest network that listens to everything: two convolutions, and a shift for what it is told."""

    reads = ("context", "level", "label")

    def __init__(
        self, *, in_channels: int = 3, out_channels: int = 3, classes: int | None = None, null_class: bool = True,
        width: int = 8, context_width: int | None = WIDTH,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_channels, self.out_channels, self.width = in_channels, out_channels, width
        self.classes = classes
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        self.time, self.level = nn.Linear(width, width), nn.Linear(width, width)
        self.context = None if context_width is None else nn.Linear(context_width, width)
        self.label_emb = None if classes is None else nn.Embedding(classes + null_class, width)

    def forward(
        self, x: torch.Tensor, time: torch.Tensor, *, context: torch.Tensor | None = None,
        level: torch.Tensor | None = None, label: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        shift = self.time(timestep_embedding(time, self.width).to(x.dtype))
        if level is not None:
            shift = shift + self.level(timestep_embedding(1000 * level, self.width).to(x.dtype))
        if context is not None and self.context is not None:
            shift = shift + self.context(context.mean(1))
        if label is not None and self.label_emb is not None:
            shift = shift + self.label_emb(label)
        return self.conv_out(torch.tanh(self.conv_in(x) + shift[:, :, None, None]))


def tiny_cascade(
    *, sizes: tuple[int, ...] = (8, 16, 32), augmentation: float | None = 0.2, steps: int = 3, **arguments: object
) -> Pipeline:
    """Text to pictures of the last size, through all of them."""
    stages = []
    for number, size in enumerate(sizes):
        denoiser = Denoiser(
            network=randomise(TinyNet(in_channels=6 if number else 3), number + 1), schedule=CosineSchedule(),
            parameterization=V(), low_res=GaussianAugmentation(schedule=CosineSchedule()) if number else None,
        )  # fmt: skip
        stages.append(Stage(
            name=f"s{size}", denoiser=denoiser, autoencoder=Identity(), sampler=DDIM(steps=steps, eta=0.5),
            guidance=(ClassifierFree(scale=2.0), StaticThreshold()), listens=("text",), space=Images(size),
            feeds="image" if number == len(sizes) - 1 else "low_res", augmentation=augmentation if number else None,
        ))  # fmt: skip
    return Pipeline(conditioners={"text": LetterCounts().requires_grad_(False)}, stages=stages, **arguments)  # type: ignore[arg-type]
