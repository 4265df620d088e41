"""What a training run minimises: the protocol between the loop and its objectives.

An objective owns the network being trained (and any frozen ones it needs), makes a batch's loss, and knows how to
show and to export what was learned. The loop owns the order of rows, the optimizer, averages and checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.draws import stream
from zoo.noise import AddressedNoise

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """One training batch by address: rows of the dataset and global sample numbers, each (B,) int64.

    It may be a share of the step's global batch of `of` samples, of which it has those at `places` (B,); alone it
    is the whole.
    """

    rows: np.ndarray
    samples: np.ndarray
    seed: int
    training: bool = True
    device: torch.device = CPU
    places: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    of: int = 0

    def __post_init__(self) -> None:
        if self.of == 0:
            object.__setattr__(self, "of", len(self.rows))
            object.__setattr__(self, "places", np.arange(len(self.rows), dtype=np.int64))

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
    """See the module; `network` holds every trained parameter.

    What an objective may have besides, and the loop looks for: `whole_batch = True` where a sample's loss depends on
    the others of its batch, which then is never split; `state()` and `load_state(tensors)`, what it remembers of the
    run, saved in checkpoints: every process asks for it, and it must be the same in each; `adversary` and
    `adversary_loss(network, batch)`, a second network trained against the first (zoo/training/adversary.py);
    `export_others(network)`, as `export`, by the ending of the name: further weights that the run made.
    """

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
