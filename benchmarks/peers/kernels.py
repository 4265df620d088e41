"""Kernels that a step runs on a cuda device, and launches that the host makes for them (one for a whole graph)."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch

from zoo.bench.machine import synchronise

FEW, MORE = 2, 4  # steps of the two profiled runs, whose difference is of steps alone
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cuGraphLaunch")
MOVES = ("Memcpy", "Memset")
IDLE = ("Context Sync", "Stream Sync", "Event Sync", "Stream Wait")


def kernels(run: Callable[[int], Any], device: str, *, of: str) -> dict[str, Any]:
    """Counts of a step, or of one call where `of` is `call`; `run` takes a number of steps.

    Profiling slows launches, so it runs after everything is timed.
    """
    nothing: dict[str, Any] = {"of": of, "kernels": None, "launches": None, "copies": None}
    if not device.startswith("cuda"):
        return {**nothing, "reason": f"only a cuda device runs kernels that can be counted, and this is {device}"}
    try:
        _profiled(run, FEW, device)  # the profiler's first run may lose events
        few = {} if of == "call" else _profiled(run, FEW, device)
        more = _profiled(run, MORE, device)
    except RuntimeError as error:
        return {**nothing, "reason": f"the profiler failed: {str(error).splitlines()[0][:160]}"}
    if not more["kernels"]:
        return {**nothing, "reason": "the profiler saw no kernel"}
    steps = 1 if of == "call" else MORE - FEW
    return {"of": of, **{k: round((n - few.get(k, 0)) / steps, 1) for k, n in more.items()}, "reason": None}


def _profiled(run: Callable[[int], Any], steps: int, device: str) -> dict[str, int]:
    from torch.profiler import ProfilerActivity, profile

    # CUPTI doesn't outlive being taken down and set up again beside CUDA graphs; torch sets these for its own ones.
    os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    synchronise(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run(steps)
        synchronise(device)
    found = {"kernels": 0, "launches": 0, "copies": 0}
    for event in seen.events() or ():
        if event.device_type.name == "CUDA":
            if not event.name.startswith(IDLE):
                found["copies" if event.name.startswith(MOVES) else "kernels"] += 1
        elif event.name.startswith(LAUNCHES):
            found["launches"] += 1
    return found


def launch_seconds(device: str, *, launches: int = 500) -> float | None:
    """What the host spends on launching one small kernel through torch; None where that doesn't exist."""
    if not device.startswith("cuda"):
        return None
    x = torch.zeros(1, device=device)
    x.add_(1)
    synchronise(device)
    began = perf_counter()
    for _ in range(launches):
        x.add_(1)
    spent = perf_counter() - began
    synchronise(device)
    return round(spent / launches, 8)
