"""A cell: rows that differ by zoo's fast path alone, in turn with diffusers, on fresh weights made on the device.

Each way of a part is warmed up (which compiles and records it), then all take turns. What one fails at, or has no time
for, is told and stops no other.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from zoo.benchmark import measure, record
from zoo.benchmark.machine import versions
from zoo.benchmark.measure import Operations, Timed
from zoo.benchmark.peers import ahead
from zoo.benchmark.peers.agreement import no_pair, pair, relative_agreement
from zoo.benchmark.peers.fresh import fresh
from zoo.benchmark.peers.kernels import kernels, launch_seconds
from zoo.benchmark.peers.loops import Scene, scene
from zoo.benchmark.peers.ways import PLAIN, Way, compiles, diffusers_ways, parts_of, zoo_way
from zoo.benchmark.pipelines import flags
from zoo.benchmark.suite import Row
from zoo.samplers.ddim import DDIM

if TYPE_CHECKING:
    from zoo.benchmark.run import Run

TOLERANCE = 1e-3  # of a loop's or a decoder's output in float32, in deviations
ROUNDS_SECONDS = 12.0  # the rounds of a part go on no longer, once each way has had two turns
COMPILE_SECONDS = 20.0  # a compilation is not begun on a cuda device with less time than this left, if it is unknown
FIRST = 2  # steps of the first call, in which what happens once happens


@dataclass(eq=False)
class Cell:
    """A part of some rows being compared."""

    run: Run
    rows: Sequence[Row]
    part: str
    given: Scene
    timed: dict[str, Timed] = field(default_factory=dict)  # by way's id
    ways: list[Way] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # why a library of diffusers' has no pair
    first: dict[str, float] = field(default_factory=dict)  # seconds of each way's first call

    @property
    def name(self) -> str:
        """Of its noise, and its rows' group."""
        return f"{self.rows[0].asked.name}: {self.part}"

    @property
    def steps(self) -> int:
        """Of a whole loop."""
        asked, sampler = self.given.row.asked, self.given.stage.sampler
        return asked.steps or (sampler.steps if isinstance(sampler, DDIM) else 1)


def compare_cell(run: Run, rows: Sequence[Row]) -> None:
    """Every part of the rows, each written when it is there."""
    settings = run.suite.settings
    run.tell(f"building {rows[0].asked.name}")
    given = scene(rows[0], fresh(rows[0], settings.seed), settings.seed, settings.prompts)
    operations: dict[str, int | str] = {}
    for number, part in enumerate(parts_of(rows[0])):
        if number and late(run):
            for row in rows:
                _note(run, row, f"no time was left for its {part}")
            break
        cell = Cell(run=run, rows=rows, part=part, given=given)
        operations[part] = count(cell)
        _part(cell, operations[part])
        run.save()
    del given
    release(rows[0].asked.device)


def late(run: Run, needed: float = 0.0) -> bool:
    """Whether less time than needed is left."""
    deadline = getattr(run, "deadline", None)
    return deadline is not None and perf_counter() + needed > deadline


def release(device: str) -> None:
    """Give back what a cell held, its compilations too."""
    torch._dynamo.reset()
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _note(run: Run, row: Row, text: str) -> None:
    for written in run.record["rows"]:
        if written["id"].startswith(row.id) and written["asked"]["library"] == "zoo":
            written["notes"].append(text)


def count(cell: Cell) -> int | str:
    """Operations of one step of the loop for the whole batch, or of decoding it; or why they aren't known."""
    way = zoo_way(_plain(cell.rows[0]), cell.part, cell.given)
    networks: list[Any] = []
    try:
        with Operations(networks) as counted:
            way.run(1)
    except (RuntimeError, NotImplementedError) as error:
        return f"operations can't be counted: {str(error).splitlines()[0][:160]}"
    return counted.total


def _plain(row: Row) -> Row:
    from dataclasses import replace

    return replace(row, asked=replace(row.asked, fast=False))


def _part(cell: Cell, operations: int | str) -> None:
    run, device = cell.run, cell.rows[0].asked.device
    overhead = launch_seconds(device)
    for way in _ways(cell):
        run.tell(f"{way.row.asked.name}, {cell.part}: warming up {way.library}")
        _warm_up(cell, way)
    baseline: list[float] = []
    if cell.timed:
        run.tell(f"{cell.name}: {len(cell.timed)} in turn")
        baseline = _rounds(cell)
    live = [way for way in cell.ways if way.id in cell.timed and cell.timed[way.id].seconds]
    if live:
        run.record["noise"][cell.name] = measure.noise(live[0].row.asked.name, baseline)
    written = {way.id: _row(cell, way, operations, overhead) for way in live}
    run.record["rows"] += written.values()
    run.record["pairs"] += _pairs(cell, live)
    run.save()
    for way in live:  # after all is timed: a profiler makes launches dearer
        if late(run):
            written[way.id]["kernels"] = {"kernels": None, "reason": "no time was left to count them"}
            continue
        of = "step" if cell.part == "loop" else "call"
        written[way.id]["kernels"] |= kernels(way.run, device, of=of)


def _ways(cell: Cell) -> Iterator[Way]:
    """zoo's rows, then diffusers; those that can't be made are told."""
    for row in cell.rows:
        yield zoo_way(row, cell.part, cell.given)
    try:
        yield from diffusers_ways(cell.rows[0], cell.part, cell.given, modes=any(compiles(row) for row in cell.rows))
    except ImportError as error:
        _without(cell, PLAIN, "unavailable", f"needs diffusers ({error})")
    except Exception as error:  # another library's, which may raise anything
        _without(cell, PLAIN, "failed", said(error))


def _without(cell: Cell, library: str, status: str, reason: str) -> None:
    cell.reasons[library] = reason
    row = record.row_of(cell.rows[0], status, reason, part=cell.part, library=library)
    cell.run.record["rows"].append(row)


def said(error: BaseException) -> str:
    """An error as a row's reason."""
    if measure.out_of_memory(error):
        return "there is no memory for it"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def _warm_up(cell: Cell, way: Way) -> None:
    """A few steps, in which all is compiled and recorded, then a whole call; memory is the most that was held."""
    run, device, asked = cell.run, way.row.asked.device, way.row.asked
    if way.compiled is not None and late(run, _needed(way)):
        _gone(cell, way, "not reached", "no time was left to compile it")
        return
    cuda = device.startswith("cuda")

    def call(_: int) -> None:
        way.made = way.run(cell.steps)

    timed = Timed(id=way.id, call=call, device=device, batch=asked.batch)
    try:
        before = measure.start_memory(device)
        held = torch.cuda.memory_allocated(device) if cuda else 0
        cell.first[way.id] = measure.once(Timed("", lambda _: way.run(FIRST), device, asked.batch), 0)
        for number in range(cell.run.suite.settings.warm_up):
            timed.warm_up.append(measure.once(timed, number))
        timed.memory = measure.peak_memory(device, before)
    except Exception as error:
        _gone(cell, way, "failed", said(error))
        release(device) if measure.out_of_memory(error) else None
        return
    if cuda:  # others hold their weights beside it
        timed.memory["device_peak_bytes"] += way.weights - held
    timed.memory["weights_bytes"] = way.weights
    way.clock.clear()
    cell.timed[way.id] = timed
    cell.ways.append(way)


def _needed(way: Way) -> float:
    """Seconds that a compilation may take here, from a cache that was filled ahead if it was."""
    if not way.row.asked.device.startswith("cuda"):
        return 0.0
    cold = ahead.read().get(way.id, {}).get("seconds")
    return COMPILE_SECONDS if cold is None else cold / 2.0


def _gone(cell: Cell, way: Way, status: str, reason: str) -> None:
    if way.library != "zoo":
        cell.reasons[way.library] = reason
        status = "failed" if status == "failed" else "unavailable"  # what is not reached is asked for again by its row
    row = record.row_of(way.row, status, reason, part=way.part, library=way.library)
    cell.run.record["rows"].append(row)


def _rounds(cell: Cell) -> list[float]:
    """Turns until the settings' number, the time of a part or the deadline; returns the baseline's seconds."""
    baseline: list[float] = []
    until = perf_counter() + ROUNDS_SECONDS

    def broken(one: Timed, error: Exception) -> None:
        way = next(w for w in cell.ways if w.id == one.id)
        del cell.timed[one.id]
        _gone(cell, way, "failed", said(error))

    for number in range(cell.run.suite.settings.repeats):
        if not cell.timed or (number >= 2 and (perf_counter() > until or late(cell.run))):
            break
        turns = list(cell.timed.values())
        found = measure.rounds(turns, 1, broken=broken)
        if turns[0].id not in cell.timed:
            baseline.clear()
        baseline += found
    return baseline


def _row(cell: Cell, way: Way, operations: int | str, overhead: float | None) -> dict[str, Any]:
    """A way's row with all that its turns tell."""
    run, asked, one = cell.run, way.row.asked, cell.timed[way.id]
    out = record.row_of(way.row, "measured", part=way.part, library=way.library) | {"group": cell.name}
    loop = cell.part == "loop"
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
    out["kernels"] = {"launch_seconds": overhead}
    out["wall_seconds"] = round(cell.first[way.id] + sum(one.warm_up) + sum(one.seconds), 3)
    out["quality"] = record.quality("random weights: speed only")
    out["notes"] = [*way.notes, "random weights: speed only", *(["from latents to latents"] if latents else [])]
    return out


def _work(cell: Cell, operations: int | str, seconds: float) -> dict[str, Any]:
    asked = cell.rows[0].asked
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
    why = found.get("reason") or "nothing was compiled ahead of this run, so its own first call may be cold"
    return {
        "mode": way.compiled, "cold_seconds": cold, "first_call_seconds": round(cell.first[way.id], 3),
        "reason": None if cold is not None else why,
    }  # fmt: skip


def _pairs(cell: Cell, live: Sequence[Way]) -> list[dict[str, Any]]:
    """Each of zoo's ways with diffusers as it is, and with the better of its compiled ones."""
    from zoo.benchmark.peers.ways import MODES

    def middle(way: Way) -> float:
        return statistics.median(cell.timed[way.id].seconds)

    plain = [way for way in live if way.library == PLAIN]
    modes = sorted((way for way in live if way.library in MODES), key=middle)
    tolerance = TOLERANCE if cell.rows[0].asked.precision == "float32" else None
    version = versions()["diffusers"] or ""
    found = []
    for ours in (way for way in live if way.library == "zoo"):
        name = f"{ours.row.asked.name}: {cell.part}"
        for theirs in [*plain, *modes[:1]]:
            assert ours.made is not None
            assert theirs.made is not None
            agrees = relative_agreement(
                ours.made, theirs.made, "latents" if cell.part == "loop" else "images", tolerance
            )
            found.append(pair(
                name, ours.id, theirs.id, f"{theirs.library} {version}".strip(), cell.timed[ours.id].seconds,
                cell.timed[theirs.id].seconds, agrees,
            ))  # fmt: skip
        missing = {k: v for k, v in cell.reasons.items() if k == PLAIN or not modes}
        found += [no_pair(name, ours.id, library, reason) for library, reason in missing.items()]
    return found
