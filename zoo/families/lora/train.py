"""Training a LoRA: low-rank matrices beside frozen weights, and the file that they become (Hu et al. 2021, 4.1).

    W' = W + (alpha / rank) * up @ down

`down` starts at random and `up` at zero, so that the network first computes what it did. The file is in diffusers'
spelling, with PEFT's settings in its metadata, so that diffusers loads it into the same network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from zoo.families.lora.spelling import Target, targets_of
from zoo.schema.errors import ConfigError

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """The `adapter:` block of a recipe.

    Args:
        rank: of the matrices' product.
        alpha: the product counts alpha / rank times; the rank where none is given.
        targets: ends of the paths of linear layers and convolutions, like `to_q` or `conv1`, in the network's own names
            or diffusers'; without any, every linear layer.
    """

    rank: int = 8
    alpha: float | None = None
    targets: Sequence[str] = ()

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class LowRank(nn.Module):
    """A frozen weight -> itself + scale * up @ down, in its place (torch.nn.utils.parametrize)."""

    def __init__(self, weight: Tensor, *, path: str, rank: int, scale: float) -> None:
        super().__init__()
        inputs = math.prod(weight.shape[1:])
        self.path, self.scale, self.shape = path, scale, tuple(weight.shape)
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-(inputs**-0.5), inputs**-0.5))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # what is learned is small beside the weight
            return weight + self.scale * (self.up @ self.down).view(self.shape)

    def tensors(self) -> dict[str, Tensor]:
        """By their names in a file; a convolution's `down` has its kernel, and `up` is 1x1."""
        kernel = self.shape[2:]
        down, up = self.down.detach(), self.up.detach()
        return {
            f"unet.{self.path}.lora_A.weight": down.reshape(len(down), *self.shape[1:]),
            f"unet.{self.path}.lora_B.weight": up.reshape(*up.shape, *(1 for _ in kernel)),
        }


def adapt(network: nn.Module, settings: AdapterSettings) -> None:
    """Freeze a network and put low-rank matrices beside the weights of its targets; ConfigError names one unknown."""
    chosen = _chosen(network, settings.targets)
    network.requires_grad_(False)
    for target in chosen:
        layer = network.get_submodule(target.module)
        weight: Any = layer.weight
        least = min(weight.shape[0], math.prod(weight.shape[1:]))
        if settings.rank > least:
            raise ConfigError(
                f"adapter.rank is {settings.rank} and '{target.module}' has a side of {least}; lower it, or name other "
                "targets",
                code="number-out-of-range",
            )
        made = LowRank(weight, path=target.path, rank=settings.rank, scale=settings.scale)
        register_parametrization(layer, "weight", made)


def trained(network: nn.Module, settings: AdapterSettings) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of an adapted network's LoRA, and the metadata of its file."""
    layers = [module for module in network.modules() if isinstance(module, LowRank)]
    said = {
        "r": settings.rank, "lora_alpha": settings.scale * settings.rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted(layer.path for layer in layers),
    }  # fmt: skip
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in said.items()})}
    return {name: tensor for layer in layers for name, tensor in layer.tensors().items()}, metadata


def _chosen(network: nn.Module, wanted: Sequence[str]) -> list[Target]:
    modules = dict(network.named_modules())
    able = {
        t.module: t for t in targets_of(network).values() if t.third is None and isinstance(modules[t.module], _LAYERS)
    }

    def is_one(target: Target, name: str) -> bool:
        return any(f".{path}".endswith(f".{name}") for path in (target.module, target.path))

    unknown = next((name for name in wanted if not any(is_one(t, name) for t in able.values())), None)
    if unknown is not None:
        shown = ", ".join(sorted({t.path.rpartition(".")[2] for t in able.values()})[:12])
        raise ConfigError(
            f"adapter.targets names '{unknown[:80]}', which ends the path of no linear layer and no convolution of "
            f"{type(network).__name__}; its layers' names end in {shown}",
            code="adapter-target-unknown",
        )
    if wanted:
        return [t for t in able.values() if any(is_one(t, name) for name in wanted)]
    return [t for t in able.values() if isinstance(modules[t.module], nn.Linear)]
