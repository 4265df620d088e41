"""Pipelines with fresh weights, made where they will run: no large network is drawn or kept on the host."""

from __future__ import annotations

import torch
from torch import nn

import zoo
from zoo.bench.rows import Row
from zoo.pipeline.pipeline import Pipeline


def fresh(row: Row, seed: int) -> Pipeline:
    """The pipeline of a row on its device and in its precision, every weight of every network drawn there."""
    asked = row.asked
    assert row.config is not None
    with torch.device("meta"):
        pipe = zoo.build(row.config, device="meta", dtype=asked.precision)
    modules = pipe.modules()
    if any(True for module in modules for _ in module.buffers()):  # buffers can't be drawn
        pipe = zoo.build(row.config, device=asked.device, dtype=asked.precision)
        modules = pipe.modules()
    generator = torch.Generator(asked.device).manual_seed(seed)
    for module in modules:
        if any(p.is_meta for p in module.parameters()):
            module.to_empty(device=asked.device)
        draw(module, generator)
    return pipe


@torch.no_grad()
def draw(module: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep activations' scale: no layer starts at zero, as freshly built ones do.

    Half the variance-preserving scale, so that a loop isn't chaotic and two libraries' rounding doesn't diverge.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.5 * parameter[0].numel() ** -0.5, generator=generator)
        elif name.endswith("weight"):
            parameter.fill_(1.0)  # of a norm
        else:
            parameter.normal_(0.0, 0.02, generator=generator)


def bytes_of(module: nn.Module) -> int:
    """Bytes of its parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())
