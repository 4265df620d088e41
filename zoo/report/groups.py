"""Which rows stand in one table: those of one protocol, measured in one place; and what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.report.model import DIMENSIONS, Cell, Column, Record, Row

NOTHING = Cell(value=None)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row and the record it comes from."""

    row: Row
    record: Record

    def cell(self, column: Column) -> Cell:
        """The value under a column; nothing where the row has none."""
        return self.row.cells.get(column, NOTHING)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that may be held against each other."""

    protocol: str
    place: str
    entries: tuple[Entry, ...]  # the best first
    columns: tuple[Column, ...]  # those that hold a value
    absent: tuple[tuple[str, str], ...]  # (name, reason) of columns that hold none
    usual: Mapping[str, str | None]  # dimensions in which all measured rows with real weights are one
    varied: tuple[str, ...]  # dimensions in which any rows differ
    runs: int

    def label(self, row: Row) -> str:
        """A row in the words that tell it from the others."""
        telling = [d for d in DIMENSIONS if d not in self.usual or self.usual[d] != row.asked.get(d)]
        said = [word for d in telling if (word := _word(d, row.asked.get(d)))]
        return " ".join(said) or row.asked.get("model") or row.name

    @property
    def newest(self) -> tuple[Entry, ...]:
        """Each measured configuration once, as it was measured last."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.row.status == "measured":
                key = entry.row.identity or entry.row.name
                if key not in found or entry.record.when > found[key].record.when:
                    found[key] = entry
        return tuple(e for e in self.entries if e in found.values())


def groups(records: Sequence[Record]) -> list[Group]:
    """The groups of all records: suites first, then by the newest record."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for record in records:
        for row in record.rows:
            found.setdefault((row.protocol, row.place), []).append(Entry(row=row, record=record))
    ordered = sorted(found.items(), key=lambda item: item[0][0] != "suite")  # stable: the newest stays first
    return [_group(protocol, place, entries) for (protocol, place), entries in ordered]


def _group(protocol: str, place: str, entries: list[Entry]) -> Group:
    columns: dict[Column, None] = {}
    for entry in entries:
        columns.update(dict.fromkeys(entry.row.cells))
    filled = [c for c in columns if any(e.cell(c).value is not None for e in entries)]
    keys = list(dict.fromkeys(c.key for c in filled))  # in the records' own order, one key's columns side by side
    kept = sorted(filled, key=lambda c: (c.kind != "quality", keys.index(c.key)))
    shown = {c.name for c in kept}
    absent: dict[str, dict[str, None]] = {}
    unjudged = {why: None for e in entries if (why := e.row.unjudged)}
    if unjudged and not any(c.kind == "quality" for c in kept):
        absent["quality"] = unjudged
    for column in columns:
        if column not in filled and column.name not in shown:
            reasons = {why: None for e in entries if (why := e.cell(column).reason)}
            absent.setdefault(column.name, {}).update(reasons)
    said = {d: {e.row.asked.get(d) for e in entries} for d in DIMENSIONS}
    varied = tuple(d for d in DIMENSIONS if len(said[d]) > 1)
    real = [e for e in entries if e.row.status == "measured" and not e.row.random_weights] or entries
    usual = {d: real[0].row.asked.get(d) for d in DIMENSIONS if len({e.row.asked.get(d) for e in real}) == 1}
    return Group(
        protocol=protocol, place=place, entries=tuple(sorted(entries, key=lambda e: _rank(e, kept))),
        columns=tuple(kept), absent=tuple((name, "; ".join(whys)) for name, whys in absent.items()),
        usual=usual, varied=varied, runs=len({e.record.path for e in entries}),
    )  # fmt: skip


def _rank(entry: Entry, columns: Sequence[Column]) -> tuple[float, ...]:
    """Measured before not, then by the first column that says what is better, and the next ones."""
    ranks = [0.0 if entry.row.status == "measured" else 1.0]
    for column in columns:
        if column.better:
            value = entry.cell(column).value
            ranks.append(float("inf") if value is None else value if column.better == "lower" else -value)
    return tuple(ranks)


def _word(dimension: str, value: str | None) -> str:
    """A dimension's value, short and clear beside the others."""
    if value is None or (dimension in ("fast", "step_cache") and value == "no"):
        return ""
    words = {
        "guidance": f"g={value}", "batch": f"b{value}", "size": f"{value} px",
        "fast": "fast" if value == "yes" else f"fast({value})", "step_cache": f"cached {value}".removesuffix(" yes"),
    }  # fmt: skip
    return words.get(dimension, value)
