"""The device to run on: a name as torch knows it, or `auto` for the best available.

Python's default is the CPU, so that a script does the same on every machine; the command line's is `auto`. Records
hold the device that was used, and beside it what was requested.
"""

from __future__ import annotations

from typing import Any

import torch

from zoo.schema.errors import UsageError

AUTO = "auto"


def best() -> torch.device:
    """The first available of cuda, mps and xpu, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    xpu = getattr(torch, "xpu", None)
    return torch.device("xpu" if xpu is not None and xpu.is_available() else "cpu")


def resolve(device: str | torch.device | None) -> torch.device:
    """A device for `auto`, a name or None (the CPU); UsageError for one that isn't there."""
    number = isinstance(device, int) and not isinstance(device, bool) and device >= 0
    if not (device is None or number or isinstance(device, (str, torch.device))):
        raise UsageError(
            f"the device is a {type(device).__name__}; give a name, like cpu or cuda:1", code="argument-type-wrong"
        )
    if device == AUTO:
        return best()
    try:
        place = torch.device("cpu" if device is None else device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise UsageError(
            f"the device '{device}' is not there ({said}); use cpu, or auto for the best one", code="device-missing"
        ) from error
    return place


def indexed(device: torch.device | str) -> torch.device:
    """The device with its number: the current one for `cuda` alone, which some of torch's functions refuse."""
    place = torch.device(device)
    if place.type == "cuda" and place.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return place


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: torch has a type for it on a GPU only."""
    said = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )


def requested(device: Any) -> dict[str, str]:
    """What a record adds where the device was left to zoo; nothing where it was named."""
    return {"device_requested": AUTO} if isinstance(device, str) and device == AUTO else {}
