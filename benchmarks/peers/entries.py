"""A cell: what is measured, and what it writes: a row for each way that was, and a pair for each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.peers import ahead
from benchmarks.peers.agreement import no_pair, pair, relative_agreement
from benchmarks.peers.loops import Scene
from benchmarks.peers.ways import EAGER, MODES, PLAIN, ZOO, Way, backend, eager
from zoo.bench import measure, record
from zoo.bench.measure import Timed
from zoo.bench.pipelines import flags
from zoo.bench.rows import Row

if TYPE_CHECKING:
    from zoo.bench.run import Run

TOLERANCE = 1e-3  # of a loop's or a decoder's output in float32, in deviations


@dataclass(eq=False)
class Cell:
    """A part of a row being compared."""

    run: Run
    row: Row
    part: str
    given: Scene
    until: float | None  # of time.perf_counter
    timed: dict[str, Timed] = field(default_factory=dict)  # by way's id
    ways: list[Way] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # why a library of diffusers' has no pair
    first: dict[str, float] = field(default_factory=dict)  # seconds of each way's first call
    written: dict[str, dict[str, Any]] = field(default_factory=dict)  # rows of the record, by way's id

    @property
    def name(self) -> str:
        """The name of the part's noise, and of its rows' group."""
        return f"{self.row.asked.name}: {self.part}"

    @property
    def steps(self) -> int:
        """Steps of a whole loop."""
        return len(self.given.stage.sampler.plan(self.given.stage.denoiser.schedule))

    def late(self, needed: float = 0.0) -> bool:
        """Whether less time than needed is left."""
        return self.until is not None and perf_counter() + needed > self.until


def row_of_way(cell: Cell, way: Way, operations: int | str, overhead: float | None) -> dict[str, Any]:
    """A way's row with all its measurements."""
    run, asked, one = cell.run, cell.row.asked, cell.timed[way.id]
    out: dict[str, Any] = record.row_of(way.row, "measured", part=way.part, library=way.library) | {"group": cell.name}
    loop = cell.part == "loop"
    if way.library == EAGER:
        out["name"] = f"{eager(cell.row).asked.name} {cell.part}"
        out["asked"]["fast"] = False
    out["run"] = {
        "stages": [], "steps": cell.steps if loop else None, "evaluations": cell.steps if loop else None,
        "batch": asked.batch, "guided": cell.given.guided, "seeds": [run.suite.settings.seed],
    }  # fmt: skip
    out["precision"] = {"dtype": asked.precision, **flags()}
    out["fast"] = way.fast
    out["speed"] = measure.speed(one, cell.steps if loop else None)
    latents = loop and cell.given.stage.autoencoder.factor > 1
    if latents:
        out["speed"]["images_per_second"] = None
    out["speed"]["step_seconds"] = way.clock.record()
    out["speed"]["first_call_seconds"] = round(cell.first[way.id], 4)
    out["memory"], out["energy"] = one.memory, measure.energy(one)
    out["work"] = _work(cell, operations, out["speed"]["latency_seconds"]["p50"])
    out["compile"] = _compile(cell, way)
    out["kernels"] = {
        "launch_seconds": overhead, "of": "step" if loop else "call", "kernels": None,
        "reason": "its process ended before they were counted",
    }  # fmt: skip
    out["wall_seconds"] = round(cell.first[way.id] + sum(one.warm_up) + sum(one.seconds), 3)
    out["quality"] = record.quality("random weights: speed only")
    out["notes"] = [*way.notes, "random weights: speed only", *(["from latents to latents"] if latents else [])]
    return out


def _work(cell: Cell, operations: int | str, seconds: float) -> dict[str, Any]:
    asked = cell.row.asked
    peak = cell.run.peak(asked.device, asked.precision)
    if isinstance(operations, str):
        return {"flops_per_image": None, "tflops": None, "peak": peak, "share_of_peak": None, "reason": operations}
    whole = operations * (cell.steps if cell.part == "loop" else 1)
    rate = whole / seconds / 1e12
    return {
        "flops_per_image": whole // asked.batch, "tflops": round(rate, 5), "peak": peak,
        "share_of_peak": round(rate / cell.run.record["peaks"][peak]["tflops"], 4), "reason": None,
    }  # fmt: skip


def _compile(cell: Cell, way: Way) -> dict[str, Any] | None:
    """Seconds of compiling, apart from all others: with an empty cache, and as this run found it."""
    if way.compiled is None:
        return None
    found = ahead.read().get(way.id, {})
    cold = found.get("seconds")
    used = backend(cell.row.asked.device)
    why = found.get("reason") or "nothing was compiled ahead of this run, so its own first call may be cold"
    if used == "eager":
        why = "the network was traced, and no code generated"
    return {
        "backend": used, "mode": way.compiled, "cold_seconds": cold, "first_call_seconds": round(cell.first[way.id], 3),
        "reason": None if cold is not None else why,
    }  # fmt: skip


def pairs_of(cell: Cell, live: Sequence[Way]) -> list[dict[str, Any]]:
    """Each of zoo's ways with diffusers as it is."""
    plain = [way for way in live if way.library == PLAIN]
    found = []
    for ours in (way for way in live if way.library in (ZOO, EAGER)):
        seconds = cell.timed[ours.id].seconds
        found += [pair_of(cell, ours, theirs, seconds, cell.timed[theirs.id].seconds) for theirs in plain]
        if PLAIN in cell.reasons:
            found.append(no_pair(_name(cell, ours), ours.id, PLAIN, cell.reasons[PLAIN]))
    return found


def gone_pairs(cell: Cell, ours: Way) -> list[dict[str, Any]]:
    """Why there is no pair with any compiled way of diffusers'."""
    return [no_pair(_name(cell, ours), ours.id, lib, why) for lib, why in cell.reasons.items() if lib in MODES]


def pair_of(cell: Cell, ours: Way, theirs: Way, own: list[float], other: list[float]) -> dict[str, Any]:
    """One of zoo's ways with one of diffusers', by the seconds of their turns."""
    assert ours.made is not None
    assert theirs.made is not None
    tolerance = TOLERANCE if cell.row.asked.precision == "float32" else None
    agrees = relative_agreement(ours.made, theirs.made, "latents" if cell.part == "loop" else "images", tolerance)
    version = cell.run.record["versions"]["diffusers"] or ""
    peer = f"{theirs.library} {version}".strip()
    return pair(_name(cell, ours), ours.id, theirs.id, peer, own, other, agrees)


def _name(cell: Cell, ours: Way) -> str:
    return cell.name if ours.library == ZOO else f"{eager(cell.row).asked.name}: {cell.part}"
