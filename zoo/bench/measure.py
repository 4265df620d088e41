"""Measuring calls: warm-up, rounds in which every row takes its turn, and what a run cost in memory, energy and work.

In each round the group's first row runs once more, as the baseline: how much that varies is the noise under which no
difference means anything. Other load on the machine falls on all rows alike.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from zoo.bench.machine import synchronise, watts

Call = Callable[[int], Any]  # the round -> whatever was made
LEAST_ROUNDS = 2  # that a deadline doesn't take away: of one there is no spread


@dataclass(eq=False)
class Timed:
    """A row's call and what is measured of it; `batch` is how many images a call makes."""

    id: str
    call: Call
    device: str
    batch: int
    warm_up: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)


def once(timed: Timed, number: int) -> float:
    """Seconds of one call, from an idle device to an idle device."""
    synchronise(timed.device)
    began = perf_counter()
    timed.call(number)
    synchronise(timed.device)
    return perf_counter() - began


def warm_up(timed: Timed, times: int) -> None:
    """Run a row until one-time work is done; memory is measured at the end."""
    for number in range(max(times, 1)):
        before = start_memory(timed.device)
        timed.warm_up.append(once(timed, number))
        timed.memory = peak_memory(timed.device, before)


def rounds(
    group: Sequence[Timed], repeats: int, report: Callable[[int], Any] = lambda _: None,
    broken: Callable[[Timed, Exception], Any] | None = None, until: float | None = None,
) -> list[float]:  # fmt: skip
    """Fill every row's `seconds`, turn by turn; returns the baseline's.

    A row that fails is reported to `broken` and takes no further turn; the baseline is then of the first that goes on.
    After `until` (of time.perf_counter) no round begins but the first two.
    """
    live, baseline = list(group), list[float]()
    for number in range(repeats):
        if until is not None and number >= LEAST_ROUNDS and perf_counter() >= until:
            break
        for turn, timed in enumerate([*live[:1], *live]):
            if timed not in live:
                continue
            try:
                with Power(timed.device) as power:
                    seconds = once(timed, number)
            except Exception as error:
                if broken is None:
                    raise
                broken(timed, error)
                if timed is live[0]:
                    baseline.clear()
                live.remove(timed)
                continue
            if turn == 0:
                baseline.append(seconds)
                continue
            timed.seconds.append(seconds)
            if power.drawn:
                timed.watts.append(statistics.fmean(power.drawn))
                timed.joules.append(timed.watts[-1] * seconds)
        report(number + 1)
    return baseline


def noise(name: str, baseline: Sequence[float]) -> dict[str, Any]:
    """The noise of the repeated baseline: half the distance of its quartiles, over its median."""
    middle = statistics.median(baseline)
    spread = None  # one run has none
    if len(baseline) > 1:
        low, _, high = statistics.quantiles(baseline, n=4, method="inclusive")
        spread = round((high - low) / 2.0 / middle, 4)
    return {"row": name, "seconds": [round(s, 5) for s in baseline], "relative_spread": spread}


def quantile(runs: Sequence[float], q: float) -> float:
    """A quantile by linear interpolation between order statistics."""
    ordered = sorted(runs)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def speed(timed: Timed, evaluations: int | None) -> dict[str, Any]:
    """A row's latency and rates."""
    p50 = quantile(timed.seconds, 0.5)
    return {
        "warm_up_seconds": [round(s, 5) for s in timed.warm_up],
        "latency_seconds": {
            "p50": round(p50, 5), "p90": round(quantile(timed.seconds, 0.9), 5),
            "runs": [round(s, 5) for s in timed.seconds],
        },
        "images_per_second": round(timed.batch / p50, 4),
        "evaluations_per_second": None if evaluations is None else round(evaluations / p50, 4),
    }  # fmt: skip


def energy(timed: Timed) -> dict[str, Any]:
    """Joules an image, where the driver reports power."""
    if not timed.joules:
        return {"joules_per_image": None, "watts": None, "reason": f"the driver tells no power of {timed.device}"}
    return {
        "joules_per_image": round(statistics.median(timed.joules) / timed.batch, 3),
        "watts": round(statistics.median(timed.watts), 1), "reason": None,
    }  # fmt: skip


class Power:
    """Power readings of a device while something runs."""

    def __init__(self, device: str, *, pause: float = 0.05) -> None:
        self.device, self.pause = device, pause
        self.drawn: list[float] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Power:
        if self.device.startswith("cuda"):
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.is_set():
            found = watts(self.device)
            if found is None:
                return
            self.drawn.append(found)
            self._stop.wait(self.pause)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


def start_memory(device: str) -> dict[str, Any]:
    """Reset earlier peaks, as far as the system allows; returns what the process holds now."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    except OSError:
        return {"host": None}
    return {"host": _status("VmRSS")}


def peak_memory(device: str, before: Mapping[str, Any]) -> dict[str, Any]:
    """The peaks since `start_memory`."""
    import torch

    host = None if before["host"] is None else _status("VmHWM")
    return {
        "host_peak_bytes": host, "host_before_bytes": before["host"],
        "device_peak_bytes": torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None,
        "reason": None if host is not None else "this system doesn't let a process reset its peak",
    }  # fmt: skip


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found) * 1024


class Operations:
    """Counts operations (2 a multiply-add) of what runs inside, and those of some networks' calls apart."""

    def __init__(self, networks: Sequence[Any]) -> None:
        import torch
        from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

        def attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
            return sdpa_flop_count(q, k, v)

        mine = {}
        cpu = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
        if cpu is not None:
            mine[cpu] = attention
        self._mode = FlopCounterMode(display=False, custom_mapping=mine)
        self.networks = list(networks)
        self.calls: dict[int, list[int]] = {i: [] for i in range(len(self.networks))}

    def __enter__(self) -> Operations:
        self._hooks: list[Any] = []
        for i, network in enumerate(self.networks):
            began: list[int] = []

            def before(*_: Any, began: list[int] = began) -> None:
                began.append(self._mode.get_total_flops())

            def after(*_: Any, began: list[int] = began, i: int = i) -> None:
                self.calls[i].append(self._mode.get_total_flops() - began.pop())

            self._hooks += [network.register_forward_pre_hook(before), network.register_forward_hook(after)]
        self._mode.__enter__()
        return self

    def __exit__(self, *words: Any) -> None:
        self._mode.__exit__(*words)
        for hook in self._hooks:
            hook.remove()

    @property
    def total(self) -> int:
        """All operations."""
        return self._mode.get_total_flops()
