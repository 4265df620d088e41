"""Sample sheets: what a denoiser draws from noise that stays the same over a run.

DDIM where the schedule suits it: any with discrete points, and the straight paths of flow matching.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.noise import AddressedNoise, bound
from zoo.diffusion.types import Autoencoder, Condition
from zoo.guidance.classifier_free import ClassifierFree
from zoo.samplers.ddim import DDIM


@torch.no_grad()
def draw(
    network: Denoiser, autoencoder: Autoencoder, cond: Condition, null: Condition | None, *, count: int,
    shape: tuple[int, ...], guidance: float, steps: int, device: torch.device, seed: int = 0,
) -> Tensor:  # fmt: skip
    """(count, 3, H, W) in [-1, 1], or arrays, by DDIM, guided where there is a null condition."""
    points = network.schedule.T
    sampler = DDIM(steps=steps if points is None else min(steps, points), eta=0.0)
    table = sampler.plan(network.schedule)
    denoise = network.bind(cond, table)
    if null is not None:
        wrapped = ClassifierFree(scale=guidance)
        denoise = wrapped.wrap(denoise, denoiser=network, cond=cond, null=null.to(device), table=table)
    source, samples = AddressedNoise(seed), range(count)
    x = network.start_scale(table.start) * source(shape, purpose="start", samples=samples).to(device)
    noise = bound(source, shape=shape, samples=samples, device=device)
    return autoencoder.decode(sampler(denoise, table, x, noise=noise)).cpu()
