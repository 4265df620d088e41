"""A cell: one row and diffusers in turn, on fresh weights made on the device.

A fast row that compiles nothing brings zoo's eager network. Each way of a part is warmed up (which compiles and
records it); zoo's and diffusers as it is take turns and are saved, and only then each compiled way of diffusers' comes,
in turn with zoo once more: an error on the device breaks all that its process does afterwards, and nothing before. A
diffusers way that fails, or has no time left, is recorded and stops no other.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.peers import ahead
from benchmarks.peers.entries import Cell, gone_pairs, pair_of, pairs_of, row_of_way
from benchmarks.peers.fresh import fresh
from benchmarks.peers.kernels import kernels, launch_seconds
from benchmarks.peers.loops import scene
from benchmarks.peers.ways import (
    EAGER,
    MODES,
    PLAIN,
    ZOO,
    Way,
    compiles,
    diffusers_ways,
    eager,
    parts_of,
    zoo_way,
)
from zoo.acceleration.device import out_of_memory
from zoo.bench import measure, record
from zoo.bench.measure import Operations, Timed
from zoo.bench.rows import Row

if TYPE_CHECKING:
    from zoo.bench.run import Run

ROUNDS_SECONDS = 8.0  # the rounds of a part go on no longer, once each way has had two turns
COMPILE_SECONDS = 20.0  # a compilation is not begun on a cuda device with less time than this left, if it is unknown
FIRST = 2  # steps of the first call, which does the one-time work
LATE = "its time was over before it began"


def compare_row(run: Run, row: Row) -> None:
    """Every part of a row, each written when it is finished."""
    settings, until = run.suite.settings, run.until([row])
    needed = compile_seconds(row, record.row_of(row, "", part="loop", library=ZOO)["id"]) if compiles(row) else 0.0
    if until is not None and perf_counter() + needed > until:
        run.record["rows"].append(record.row_of(row, "not reached", LATE))
        return
    run.tell(f"building {row.asked.name}")
    given = scene(row, fresh(row, settings.seed), settings.seed, settings.prompts)
    for number, part in enumerate(parts_of(row)):
        cell = Cell(run=run, row=row, part=part, given=given, until=until)
        if number and cell.late(needed):
            for written in run.record["rows"]:
                if written["id"].startswith(row.id) and written["asked"]["library"] == ZOO:
                    written["notes"].append(f"no time was left for its {part}")
        else:
            compare_part(cell)
        run.save()
        del cell
        gc.collect()  # free one part's copies and recordings before the next


def release(device: str) -> None:
    """Free a cell's memory, its compilations too."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize(device)  # nothing that still runs reads what is freed
    gc.collect()  # recordings first, which read what compilations hold
    if "torch._dynamo" in sys.modules:  # which takes seconds to import
        torch._dynamo.reset()
        gc.collect()
    if cuda:
        torch.cuda.empty_cache()


def count(cell: Cell) -> int | str:
    """Operations of one step of the loop for the whole batch, or of decoding it; or why they aren't known."""
    try:
        with Operations([]) as counted:
            zoo_way(eager(cell.row), cell.part, cell.given).run(1)
    except (RuntimeError, NotImplementedError) as error:
        return f"operations can't be counted: {str(error).splitlines()[0][:160]}"
    return counted.total


def compare_part(cell: Cell) -> None:
    """One part: operations, then turns, rows and pairs of what isn't compiled by diffusers and of each that is; kernels
    last."""
    run, device = cell.run, cell.row.asked.device
    operations, overhead = count(cell), launch_seconds(device)

    def write(ways: list[Way]) -> None:
        for way in ways:
            cell.written[way.id] = row_of_way(cell, way, operations, overhead)
        run.record["rows"] += [cell.written[way.id] for way in ways]

    for way in _first_ways(cell):
        run.tell(f"{cell.name}, warming up {way.library}")
        _warm_up(cell, way)
        if way.library == ZOO and way.id not in cell.timed:
            return  # it is recorded, and the row measured again by a resumed run
    run.tell(f"{cell.name}, {len(cell.timed)} in turn")
    baseline = _rounds(cell, cell.timed)
    live = [way for way in cell.ways if way.id in cell.timed and cell.timed[way.id].seconds]
    if not live:
        return
    run.record["noise"][cell.name] = measure.noise(live[0].row.asked.name, baseline)
    write(live)
    run.record["pairs"] += pairs_of(cell, live)
    run.save()
    if live[0].library == ZOO and compiles(cell.row):
        live += _compiled(cell, live[0], write)
    for way in live:  # after all is timed: a profiler slows launches
        counted = cell.written[way.id]["kernels"]
        if cell.late():
            counted |= {"kernels": None, "reason": "no time was left to count them"}
        else:
            counted |= kernels(way.run, device, of=counted["of"])


def _compiled(cell: Cell, zoo: Way, write: Callable[[list[Way]], None]) -> list[Way]:
    """Each compiled way of diffusers' in turn with zoo, saved before the next begins; returns those measured."""
    run, found = cell.run, list[Way]()
    best: dict[str, Any] | None = None
    for way in _of_diffusers(cell, modes=True):
        run.tell(f"{cell.name}, warming up {way.library}")
        _warm_up(cell, way)
        if way.id not in cell.timed:
            run.save()
            continue
        first = cell.timed[zoo.id]
        turns = {zoo.id: Timed(zoo.id, first.call, first.device, first.batch), way.id: cell.timed[way.id]}
        run.tell(f"{cell.name}, zoo and {way.library} in turn")
        _rounds(cell, turns)
        if way.id in turns:
            found.append(way)
            write([way])
        if len(turns) == 2:
            made = pair_of(cell, zoo, way, turns[zoo.id].seconds, turns[way.id].seconds)
            if best is None or made["ratio"] < best["ratio"]:  # of several, the one that is quickest beside zoo
                run.record["pairs"] = [pair for pair in run.record["pairs"] if pair is not best] + [made]
                best = made
        run.save()
        if zoo.id not in turns:  # what it broke may be the device
            cell.reasons.setdefault(way.library, "zoo broke beside it")
            break
    if best is None:
        run.record["pairs"] += gone_pairs(cell, zoo)
    return found


def _first_ways(cell: Cell) -> Iterator[Way]:
    """zoo's row, its eager network, diffusers as it is."""
    row = cell.row
    yield zoo_way(row, cell.part, cell.given)
    if row.asked.fast and not compiles(row):
        yield zoo_way(eager(row), cell.part, cell.given, library=EAGER, under=row)
    yield from _of_diffusers(cell, modes=False)


def _of_diffusers(cell: Cell, *, modes: bool) -> Iterator[Way]:
    """diffusers as it is, or compiled; what can't be made is recorded."""
    try:
        yield from diffusers_ways(cell.row, cell.part, cell.given, modes=modes, plain=not modes)
    except ImportError as error:
        reason, status = f"needs diffusers ({error})", "unavailable"
    except Exception as error:  # another library's, which may raise anything
        reason, status = said(error), "failed"
    else:
        return
    if PLAIN not in cell.reasons:
        _gone(cell, PLAIN, status, reason)


def _gone(cell: Cell, library: str, status: str, reason: str) -> None:
    if library in (PLAIN, *MODES):
        cell.reasons[library] = reason
    row = record.row_of(cell.row, status, reason, part=cell.part, library=library)
    cell.run.record["rows"].append(row)


def said(error: BaseException) -> str:
    """An error as a row's reason."""
    if out_of_memory(error):
        return "there is no memory for it"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def _warm_up(cell: Cell, way: Way) -> None:
    """A few steps, in which all is compiled and recorded, then a whole call; memory is the most that was held."""
    device, asked = cell.row.asked.device, cell.row.asked
    if way.library in MODES and cell.late(compile_seconds(cell.row, way.id)):
        # Not "not reached", which is for whole rows, which are measured again.
        _gone(cell, way.library, "unavailable", "no time was left to compile it")
        return
    cuda = device.startswith("cuda")

    def call(_: int) -> None:
        way.made = way.run(cell.steps)

    timed = Timed(id=way.id, call=call, device=device, batch=asked.batch)
    memory = False
    try:
        before = measure.start_memory(device)
        held = torch.cuda.memory_allocated(device) if cuda else 0
        cell.first[way.id] = measure.once(Timed("", lambda _: way.run(FIRST), device, asked.batch), 0)
        for number in range(max(cell.run.suite.settings.warm_up, 1)):
            timed.warm_up.append(measure.once(timed, number))
        timed.memory = measure.peak_memory(device, before)
    except Exception as error:
        _gone(cell, way.library, "failed", said(error))
        memory = out_of_memory(error)
    else:
        if cuda:  # others hold their weights beside it
            timed.memory["device_peak_bytes"] += way.weights - held
        timed.memory["weights_bytes"] = way.weights
        way.clock.clear()
        cell.timed[way.id] = timed
        cell.ways.append(way)
    if memory:  # outside of the handler, whose traceback keeps tensors alive
        gc.collect()
        torch.cuda.empty_cache() if cuda else None


def compile_seconds(row: Row, identity: str) -> float:
    """Seconds that a compilation may take here, from a cache that was filled ahead if it was."""
    if not row.asked.device.startswith("cuda"):
        return 0.0
    cold = ahead.read().get(identity, {}).get("seconds")
    return COMPILE_SECONDS if cold is None else cold / 2.0


def _rounds(cell: Cell, timed: dict[str, Timed]) -> list[float]:
    """Turns until the settings' number, the time of a part or the deadline; returns the baseline's seconds.

    What breaks leaves `timed`; where it was measured before, its row says so.
    """
    baseline: list[float] = []
    until = perf_counter() + ROUNDS_SECONDS

    def broken(one: Timed, error: Exception) -> None:
        way = next(w for w in cell.ways if w.id == one.id)
        del timed[one.id]
        if one.id in cell.written:
            others = ", ".join(w.library for w in cell.ways if w.id in timed)
            cell.written[one.id]["notes"].append(f"later, in turn with {others}, it broke: {said(error)}")
        else:
            _gone(cell, way.library, "failed", said(error))

    for number in range(cell.run.suite.settings.repeats):
        if not timed or (number >= 2 and (perf_counter() > until or cell.late())):
            break
        turns = list(timed.values())
        found = measure.rounds(turns, 1, broken=broken)
        if turns[0].id not in timed:
            baseline.clear()
        baseline += found
    return baseline
