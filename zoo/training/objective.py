"""What a training run minimises: the protocol between the loop and its objectives.

An objective owns the network being trained (and any frozen ones it needs), makes a batch's loss, and knows how to
show and to export what was learned. The loop owns the order of rows, the optimizer, averages and checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.draws import stream
from zoo.noise import AddressedNoise

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """One training batch by address: rows of the dataset and global sample numbers, each (B,) int64."""

    rows: np.ndarray
    samples: np.ndarray
    seed: int
    training: bool = True
    device: torch.device = CPU

    def noise(self, shape: tuple[int, ...], purpose: str) -> Tensor:
        """Standard normal (B, *shape) on the batch's device, each row by its own global sample number."""
        noise = AddressedNoise(self.seed)(shape, purpose=purpose, samples=[int(s) for s in self.samples])
        return noise.to(self.device)

    def take(self, source: Tensor) -> Tensor:
        """The batch's rows of a dataset's tensor, on the batch's device."""
        return source[torch.from_numpy(self.rows)].to(self.device)

    def draw(self, purpose: str) -> list[np.random.Generator]:
        """One random stream a sample."""
        return [stream(self.seed, purpose, int(s)) for s in self.samples]

    def uniform(self, purpose: str) -> np.ndarray:
        """One uniform number in [0, 1) a sample, (B,) float64."""
        return np.array([g.random() for g in self.draw(purpose)])


class Objective(Protocol):
    """See the module; `network` holds every trained parameter."""

    network: nn.Module
    device: torch.device
    rows: int  # rows to train on
    validation_rows: int

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """The scalars of a batch; the entry `loss` is what is minimised."""
        ...

    def sheet(self, network: nn.Module) -> Tensor | None:
        """A picture of what the network does now, uint8 (3, H, W), from fixed noise and rows."""
        ...

    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The shipped tensors and the card's `config`, `contract` and the like."""
        ...
