"""Training on several devices by torch.distributed: started by `torchrun`, one process a device.

DDP (Li et al. 2020) gives every process all weights and averages gradients; FSDP2 (`fully_shard`, Zhao et al. 2023)
gives each a piece of every tensor. A step's global batch is split evenly: process r has the places from
r * batch / world on. Everything random goes by global sample number, so a run is the same whatever the world size,
but for the rounding of sums. Process 0 alone writes; a checkpoint holds whole tensors and fits any world size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import CPU, Batch
from zoo.training.engine.settings import TrainSettings

PATIENCE = timedelta(hours=2)  # how long a process waits for another: for process 0 to encode a dataset, say


class LossOf(nn.Module):
    """A loss as a module's forward, which DDP and FSDP hook into."""

    def __init__(self, loss: Callable[[nn.Module, Batch], Mapping[str, Tensor]], network: nn.Module) -> None:
        super().__init__()
        self.loss, self.network = loss, network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return dict(self.loss(self.network, batch))


@dataclass(frozen=True)
class Devices:
    """The rank of this process and their number; (0 of 1) when alone."""

    rank: int = 0
    world: int = 1
    parallel: str = "ddp"
    device: torch.device = CPU

    @property
    def sharded(self) -> bool:
        """Whether tensors are cut over the processes."""
        return self.world > 1 and self.parallel == "fsdp"

    def wrap(self, module: LossOf) -> nn.Module:
        """The module whose backward pass averages gradients over the processes; in place where it shards."""
        if self.world == 1:
            return module
        if self.parallel == "ddp":
            # A network may hold parameters that a loss doesn't reach (a pooled output's, say).
            return DistributedDataParallel(module, find_unused_parameters=True)
        mesh = init_device_mesh(self.device.type, (self.world,))
        for unit in _units(module):
            fully_shard(unit, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module

    @contextmanager
    def gradients_meet(self, module: nn.Module, meet: bool) -> Iterator[None]:
        """Whether a backward pass in this context averages gradients, or leaves them for a later one."""
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(meet)
        silent = module.no_sync() if isinstance(module, DistributedDataParallel) and not meet else nullcontext()
        with silent:
            yield

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """The body runs in process 0, and after it in the others: what it writes once, they read."""
        if self.world > 1 and self.rank > 0:
            dist.barrier()
        yield
        if self.world > 1 and self.rank == 0:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank; plain values only."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each value over the processes."""
        if self.world == 1:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return {key: float(value) / self.world for key, value in zip(values, sums, strict=True)}


def _units(module: nn.Module) -> list[nn.Module]:
    """What FSDP gathers at a time: the outermost elements of the network's lists that are called."""
    found: list[nn.Module] = []
    for child in module.children():
        for element in child if isinstance(child, nn.ModuleList) else ():
            called = type(element).forward is not nn.Module.forward and any(True for _ in element.parameters())
            found += [element] if called else _units(element)
        if not isinstance(child, nn.ModuleList):
            found += _units(child)
    return found


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its pieces; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on its parameter's device, in its memory format, and cut as it is where the shapes agree."""
    tensor = tensor.to(parameter.device)
    if tensor.shape != parameter.shape:
        return tensor
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


@contextmanager
def started(settings: TrainSettings, device: torch.device) -> Iterator[Devices]:
    """The processes that `torchrun` started, or this one alone.

    Raises ConfigError where they can't split the batch, before anything else happens.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    settings.share(world)
    if world == 1:
        yield Devices(device=device, parallel=settings.parallel)
        return
    if not dist.is_available():
        raise ConfigError(
            "this torch was built without torch.distributed; train on one device", code="torch-without-distributed"
        )
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Devices(rank=rank, world=world, parallel=settings.parallel, device=device)
    finally:
        dist.destroy_process_group()
