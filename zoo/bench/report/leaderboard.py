"""The leaderboard: a table a group, the best first, which a reader can sort and filter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from zoo.bench.report.groups import Entry, Group
from zoo.bench.report.model import Column
from zoo.bench.report.plots import written
from zoo.bench.report.standing import faster, margins, unbeaten

FACETS = 8  # a dimension with more values than this is filtered by text
# They depend on the process's history, and their spread is unknown.
ONCE = ("host-peak", "host-added", "host-planned", "device-planned")
_BENEATH = {
    "latency-p50": (("latency-p90", "latency of a batch, p90", "p90"),),
    "host-peak": (
        ("host-added", "host memory of a call", "a call adds"), ("host-planned", "host memory, planned", "planned"),
    ),
    "device-peak": (("device-planned", "device memory, planned", "planned"),),
}  # fmt: skip
# Shown by or beneath another; CSV has them apart.
HIDDEN = ("seconds-per-image", *(key for beneath in _BENEATH.values() for key, _, _ in beneath))
TIMED = ("images-per-second", "latency-p50", "energy", "share-of-peak")  # as noisy as the clock


@dataclass(eq=False)
class Board:
    """A group's table, as the template takes it."""

    group: Group

    @cached_property
    def columns(self) -> list[Column]:
        """Those that are shown."""
        return [c for c in self.group.columns if c.key not in HIDDEN]

    @cached_property
    def measured(self) -> list[Entry]:
        """The rows that hold values."""
        return [e for e in self.group.entries if e.row.status == "measured"]

    @cached_property
    def best(self) -> dict[Column, list[Entry]]:
        """By column, what nothing beats by more than the noise; none where that would be every row, or isn't known."""
        return {column: self._best(column) for column in self.columns}

    def _best(self, column: Column) -> list[Entry]:
        held = [(e, v) for e in self.measured if (v := e.cell(column).value) is not None]
        values = [v for _, v in held]
        if column.better is None or column.key in ONCE or len(set(values)) < 2:
            return []
        top = max(values) if column.better == "higher" else min(values)
        fine = [v == top for v in values]
        if column.kind == "quality":
            found = margins([e.cell(column) for e, _ in held])
            fine = [False] * len(held)
            if None not in found:
                fine = unbeaten(list(zip(values, found, strict=True)), column.better)
        elif column.key in TIMED:
            spread = max((e.row.noise for e, _ in held if e.row.noise is not None), default=0.0)
            fine = [not faster(max(v, top), min(v, top), spread) for v in values]
        return [] if all(fine) else [e for (e, _), good in zip(held, fine, strict=True) if good]

    @cached_property
    def quality_terms(self) -> str:
        """The terms of the columns of quality beside their keys; nothing where two of one name differ in that."""
        found = {c: ", ".join(c.terms) for c in self.columns if c.kind == "quality"}
        if len(set(found.values())) == 1:
            return f"quality: {next(iter(found.values()))}" if any(found.values()) else ""
        alike = len({c.name for c in found}) < len(found)
        return "" if alike else "; ".join(f"{c.name}: {said}" for c, said in found.items() if said)

    def terms(self, column: Column) -> list[str]:
        """What the place and the sentence above the table don't already give."""
        return list(column.terms[1:] if column.kind == "cost" else () if self.quality_terms else column.terms)

    def floor(self, column: Column) -> float | None:
        """The floor, where it is one for the whole column."""
        found = {c.floor for e in self.group.entries if (c := e.cell(column)).value is not None}
        return found.pop() if len(found) == 1 else None

    def doubt(self, column: Column) -> str:
        """Why a measure can't separate configurations."""
        held = [c for e in self.measured if (c := e.cell(column)).value is not None]
        if column.kind != "quality" or column.better is None or len(held) < 2 or self.best[column]:
            return ""
        return "no error bar: ranks nothing" if None in margins(held) else "all alike within the noise"

    @property
    def told(self) -> str:
        """The remarks above the table."""
        group, count = self.group, len(self.measured)
        parts = [f"{count} configuration{'s' if count != 1 else ''}"]
        if count > 1 and any(c.kind == "quality" for c in group.columns):
            parts.append("first those that nothing clearly beats in quality, the fastest of them on top")
        usual = [f"{name} {value}" for name, value in group.usual.items() if value not in (None, "no")]
        if usual:
            otherwise = "" if count == 1 or not set(group.usual) & set(group.varied) else " where not said otherwise"
            parts.append(", ".join(usual) + otherwise)
        noise = [e.row.noise for e in group.entries if e.row.noise is not None]
        if noise:
            parts.append(
                f"repeats spread by {100 * max(noise):.2g} %, differences of speed below twice that mean nothing"
            )
        return "; ".join(parts) + "."

    @property
    def facets(self) -> Iterator[tuple[str, list[str]]]:
        """The dimensions that rows are filtered by, with their values as people order them."""
        for dimension in self.group.varied:
            values = {e.row.asked.get(dimension, "none") for e in self.measured}
            if 2 <= len(values) <= FACETS:
                yield dimension, sorted(values, key=lambda v: (float(v) if _is_number(v) else float("inf"), v))

    def beneath(self, entry: Entry, column: Column) -> list[str]:
        """The small print beneath a value: its spread, its floor, the slow runs beneath the middle one."""
        cell, said = entry.cell(column), []
        if cell.low is not None and cell.high is not None:
            said.append(f"{written(cell.low, column.unit, 3)} to {written(cell.high, column.unit, 3)}")
        elif cell.deviation is not None:
            said.append(f"± {written(cell.deviation, column.unit, 2)}")
        if cell.floor is not None and self.floor(column) is None:
            said.append(f"floor {written(cell.floor, column.unit, 3)}")
        for key, name, label in _BENEATH.get(column.key, ()):
            value = entry.cell(replace(column, key=key, name=name)).value
            said += [] if value is None else [f"{label} {written(value, column.unit, 3)}"]
        return said

    def share(self, value: float, column: Column) -> float | None:
        """The value as a percentage of the largest, for its bar."""
        values = [v for e in self.group.entries if (v := e.cell(column).value) is not None]
        return None if len(values) < 2 or min(values) < 0 or max(values) <= 0 else 100 * value / max(values)


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False
