"""Where something was measured: processor, accelerators, versions, commit; and the peak that the machine reaches."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from time import perf_counter
from typing import Any

from zoo.schema.version import installed

PACKAGES = ("numpy", "open_clip_torch", "timm")


def code() -> dict[str, Any]:
    """zoo's version, the commit of its checkout, and whether tracked files differ from it (records don't count)."""
    from zoo.schema.version import __version__

    root = Path(__file__).resolve().parent.parent.parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    # Installed, zoo's files may lie inside another project's checkout.
    if not (root / "registry.yaml").is_file():
        return {"zoo": __version__, "commit": None, "dirty": None}
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!README.md")
    return {
        "zoo": __version__, "commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)
    }  # fmt: skip


def host() -> dict[str, Any]:
    """The processor, the cores that this process may use, and the system; without torch."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model or platform.processor() or platform.machine(), "cores": cores, "system": platform.system(),
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """The host, what this process uses of it, and the accelerators."""
    import torch

    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        memory = None
    return {
        **host(), "threads": torch.get_num_threads(), "memory_bytes": memory, "accelerators": accelerators(),
        "world_size": 1,
    }  # fmt: skip


def accelerators() -> list[dict[str, Any]]:
    """Each cuda device: name, memory, capability, driver and power limit as far as they are known."""
    import torch

    found = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(i)
        driver, limit = (_smi(i, "driver_version,power.limit") or ", ").split(", ", 1)
        found.append({
            "device": f"cuda:{i}", "name": facts.name, "memory_bytes": facts.total_memory,
            "capability": f"{facts.major}.{facts.minor}", "driver": driver or None, "power_limit_watts": _number(limit),
        })  # fmt: skip
    return found


def watts(device: Any) -> float | None:
    """The power that a cuda device draws now, in watts; None where it is unknown."""
    import torch

    place = torch.device(device)
    if place.type != "cuda":
        return None
    index = torch.cuda.current_device() if place.index is None else place.index
    try:
        return torch.cuda.power_draw(index) / 1000.0
    except Exception:  # no NVML bindings, or a driver without the reading
        return _number(_smi(index, "power.draw") or "")


def _smi(index: int, query: str) -> str | None:
    words = ["nvidia-smi", f"--id={index}", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def versions(*packages: str) -> dict[str, Any]:
    """Python, torch with its CUDA and cuDNN, and what a row may have used, the given packages too."""
    import torch

    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    found = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}
    return installed() | found | installed(*PACKAGES, *packages)


def peak(device: str, precision: str, *, seconds: float = 0.4) -> dict[str, Any]:
    """The best rates that are reached here: matrix products and a U-Net's convolution in 10^12 operations/s, and copies
    within the device's memory in 10^9 bytes/s, read and written."""
    import torch
    import torch.nn.functional as F

    place, dtype = torch.device(device), getattr(torch, precision)
    side, batch = (8192, 64) if place.type == "cuda" else (768, 4)
    a = torch.randn(side, side, device=place).to(dtype)
    x = torch.randn(batch, 128, 32, 32, device=place).to(dtype, memory_format=torch.channels_last)
    w = torch.randn(128, 128, 3, 3, device=place).to(dtype, memory_format=torch.channels_last)

    def best(call: Any) -> float:
        """The fewest seconds of a call."""
        call()
        least, began = float("inf"), perf_counter()
        while perf_counter() - began < seconds:
            synchronise(place)
            start = perf_counter()
            call()
            synchronise(place)
            least = min(least, perf_counter() - start)
        return least

    with torch.inference_mode():
        products = 2.0 * side**3 / best(lambda: a @ a) / 1e12
        convolutions = 2.0 * batch * 32 * 32 * 128 * 128 * 9 / best(lambda: F.conv2d(x, w, padding=1)) / 1e12
        source = torch.randn((2**28 if place.type == "cuda" else 2**24) // 2, device=place).to(dtype)
        target = torch.empty_like(source)
        copies = 2.0 * source.numel() * source.element_size() / best(lambda: target.copy_(source)) / 1e9
    return {
        "matmul_tflops": round(products, 4), "convolution_tflops": round(convolutions, 4),
        "tflops": round(max(products, convolutions), 4), "copy_gigabytes_per_second": round(copies, 1),
        "matmul_size": side, "convolution": f"{batch}x128x32x32, 3x3",
    }  # fmt: skip


def synchronise(device: Any) -> None:
    """Wait until a device has finished its queued work."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.device(device).type == "mps":
        torch.mps.synchronize()
