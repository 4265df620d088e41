"""Every compilation that a suite's cells will need, made before it by the same code: loops first, as the suite has
them, then decoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from benchmarks.peers import exported
from benchmarks.peers.cell import FIRST, release, said
from benchmarks.peers.fresh import fresh
from benchmarks.peers.loops import scene
from benchmarks.peers.ways import Way, compiles, diffusers_ways, parts_of, zoo_way
from zoo.bench import measure
from zoo.bench.measure import Timed
from zoo.bench.rows import Row, Settings, Suite


def compilations(
    suite: Suite, *, seconds: float, report: Callable[[str], Any] = lambda _: None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id of a row to come, `name`, `seconds` of its first call, `reason`) of each; none begins after `seconds`."""
    until = perf_counter() + seconds
    asked = [row for row in suite.rows if row.kind == "diffusers" and row.config is not None and compiles(row)]
    mine = [row for row in asked if not exported.holds(row)]
    for row, part in [(row, part) for part in ("loop", "decode") for row in mine if part in parts_of(row)]:
        if perf_counter() > until:
            return
        try:
            yield from _of_part(row, part, suite.settings, until, report)
        except Exception as error:  # of building it, or of another library
            report(f"{row.asked.name}: {said(error)}")
        release(row.asked.device)


def _of_part(
    row: Row, part: str, settings: Settings, until: float, report: Callable[[str], Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    given = scene(row, fresh(row, settings.seed), settings.seed, settings.prompts)

    def ways() -> Iterator[Way]:
        yield zoo_way(row, part, given)
        yield from diffusers_ways(row, part, given, modes=True, plain=False)

    for way in ways():
        if perf_counter() > until:
            return
        name = f"{row.asked.name}, {way.part}, {way.library}"
        report(name)
        entry: dict[str, Any] = {"name": name, "seconds": None, "reason": None}
        try:
            first = measure.once(Timed(way.id, lambda _, way=way: way.run(FIRST), row.asked.device, row.asked.batch), 0)
            entry["seconds"] = round(first, 3)
        except Exception as error:  # of a compiler
            entry["reason"] = said(error)
        yield way.id, entry
