"""What a training run minimises: the protocol between the loop and its objectives.

An objective owns the network being trained (and any frozen ones it needs), makes a batch's loss, and knows how to
show and to export what was learned. The loop owns the order of rows, the optimizer, averages and checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zoo.diffusion import philox
from zoo.diffusion.draws import stream
from zoo.diffusion.noise import AddressedNoise

CPU = torch.device("cpu")


def put(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Host values on the device; for a cuda device the copy is asynchronous."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def resident(tensor: Tensor, device: torch.device, *, share: float = 0.25) -> Tensor:
    """A dataset's tensor where its batches are taken: on a cuda device if it needs no more than a share of what is
    free there, else where it is."""
    if device.type != "cuda":
        return tensor
    free, _ = torch.cuda.mem_get_info(device)
    return tensor.to(device) if tensor.numel() * tensor.element_size() <= share * free else tensor


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
    given: Mapping[str, Any] | None = None  # what the host decides about it, where the objective was asked before

    def __post_init__(self) -> None:
        if self.of == 0:
            object.__setattr__(self, "of", len(self.rows))
            object.__setattr__(self, "places", np.arange(len(self.rows), dtype=np.int64))

    def own(self) -> dict[str, Tensor]:
        """Its rows and sample numbers on its device, as `given` holds them."""
        return {name: put(getattr(self, name), self.device) for name in ("rows", "samples")}

    def there(self, name: Literal["rows", "samples"]) -> Tensor:
        """Its rows or sample numbers on its device."""
        return put(getattr(self, name), self.device) if self.given is None else self.given[name]

    def noise(self, shape: tuple[int, ...], purpose: str) -> Tensor:
        """Standard normal (B, *shape) on the batch's device, each row by its own global sample number."""
        if self.device.type == "cuda":  # the host's numbers, drawn where they are needed
            return philox.normal(shape, philox.key_of(self.seed, purpose), self.there("samples"))
        noise = AddressedNoise(self.seed)(shape, purpose=purpose, samples=self.there("samples").tolist())
        return noise.to(self.device)

    def take(self, source: Tensor) -> Tensor:
        """The batch's rows of a dataset's tensor, on the batch's device."""
        if source.device.type == self.device.type:
            return source[self.there("rows")]
        return put(source[torch.from_numpy(self.rows)], self.device)

    def draw(self, purpose: str) -> list[np.random.Generator]:
        """One random stream a sample."""
        return [stream(self.seed, purpose, int(s)) for s in self.samples]

    def uniform(self, purpose: str) -> np.ndarray:
        """One uniform number in [0, 1) a sample, (B,) float64: the first of each of `draw`'s streams."""
        return self.uniforms(purpose, 1)[:, 0]

    def uniforms(self, purpose: str, count: int) -> np.ndarray:
        """The first numbers in [0, 1) of each of `draw`'s streams, (B, count) float64."""
        key = philox.key_of(self.seed, purpose)
        return philox.unit(philox.words(key, torch.from_numpy(self.samples), count)).numpy()


class Objective(Protocol):
    """See the module; `network` holds every trained parameter.

    What an objective may have besides, and the loop looks for: `whole_batch = True` where a sample's loss depends on
    the others of its batch, which then is never split; `given(network, batch)`, what the host decides about a batch
    (tensors on the device, and numbers that are the same for every batch), and `records`, whether the loss of a batch
    that holds it does nothing but compute on the device, so that it can be recorded (zoo/training/engine/recorded.py);
    `state()` and `load_state(tensors)`, what it remembers of the run, saved in checkpoints: every process calls it, and
    it must be the same in each; `adversary` and `adversary_loss(network, batch)`, a second network trained against the
    first (zoo/training/engine/adversary.py); `export_others(network)`, as `export`, by the ending of the name: further
    weights that the run made.
    """

    network: nn.Module
    device: torch.device
    rows: int  # rows to train on
    validation_rows: int

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """The scalars of a batch; the entry `loss` is what is minimised."""
        ...

    def sheet(self, network: nn.Module) -> Tensor | None:
        """A sample sheet of the network, uint8 (3, H, W), from fixed noise and rows."""
        ...

    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The shipped tensors and the card's `config`, `contract` and the like."""
        ...
