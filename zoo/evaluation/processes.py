"""Distributed evaluation under `torchrun`: each process fills its shards, the first one reads them all.

Nothing is summed over processes. Features go through files in a folder that all of them see, and moments are merged in
the order of the shards by one process: the value is the same whatever the number of processes and machines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from zoo.acceleration.device import resolve
from zoo.schema.errors import UsageError

PATIENCE = timedelta(hours=24)  # how long one process waits for the slowest to draw its shards


@dataclass(frozen=True)
class Processes:
    """The rank of this process and their number; (0 of 1) when alone."""

    rank: int = 0
    world: int = 1

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def started() -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world == 1:
        yield Processes()
        return
    if not dist.is_available():
        raise UsageError(
            "this torch was built without torch.distributed; measure in one process", code="torch-without-distributed"
        )
    if dist.is_initialized():
        yield Processes(rank, world)
        return
    dist.init_process_group("gloo", timeout=PATIENCE)  # only its barrier is used
    try:
        yield Processes(rank, world)
    finally:
        dist.destroy_process_group()


def own_device(device: str | torch.device | None) -> torch.device:
    """The requested device, this process's own where there are several; UsageError for one that isn't there."""
    place = resolve(device)
    if place.type == "cuda" and place.index is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return resolve(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
    return place
