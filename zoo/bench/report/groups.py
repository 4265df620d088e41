"""Which rows share a table: those of one protocol and machine; and in which settings they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from zoo.bench.report.model import DIMENSIONS, Cell, Column, Record, Row
from zoo.bench.report.standing import front, margins, unbeaten

NOTHING = Cell(value=None)
COSTS = ("seconds-per-image", "host-added", "host-peak", "device-peak", "evaluations")  # that fronts are over


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
    """Rows that may be compared."""

    protocol: str
    place: str
    entries: tuple[Entry, ...]  # the best first
    columns: tuple[Column, ...]  # those that hold a value
    absent: tuple[tuple[str, str], ...]  # (name, reason) of columns that hold none
    usual: Mapping[str, str | None]  # dimensions in which all measured rows with real weights are one
    varied: tuple[str, ...]  # dimensions in which any rows differ
    runs: int

    def label(self, row: Row) -> str:
        """A row named by the settings in which it differs."""
        telling = [d for d in DIMENSIONS if d not in self.usual or self.usual[d] != row.asked.get(d)]
        said = [word for d in telling if (word := _word(d, row.asked.get(d)))]
        return " ".join(said) or row.asked.get("model") or row.name

    @property
    def name(self) -> str:
        """Its machine, and its protocol where that is no suite."""
        return self.place if self.protocol == "suite" else f"{self.protocol}, {self.place}"

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
    sure = {c: _standing(entries, c) for c in filled if c.kind == "quality"}
    # Columns with an error bar first: the others don't rank.
    kept = sorted(filled, key=lambda c: (c.kind != "quality", sure.get(c) is None, keys.index(c.key)))
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
    ranked = sorted(entries, key=lambda e: (*_tier(e, sure, kept), *_rank(e, kept)))
    return Group(
        protocol=protocol, place=place, entries=tuple(ranked),
        columns=tuple(kept), absent=tuple((name, "; ".join(whys)) for name, whys in absent.items()),
        usual=usual, varied=varied, runs=len({e.record.path for e in entries}),
    )  # fmt: skip


def _standing(entries: Sequence[Entry], column: Column) -> list[Entry] | None:
    """Those that nothing clearly beats in a measure; None where that is unknown."""
    held = [e for e in entries if e.cell(column).value is not None]
    found = margins([e.cell(column) for e in held])
    if column.better is None or None in found:
        return None
    fine = unbeaten([(e.cell(column).value or 0.0, m) for e, m in zip(held, found, strict=True)], column.better)
    return [e for e, good in zip(held, fine, strict=True) if good]


def _tier(entry: Entry, sure: Mapping[Column, list[Entry] | None], columns: Sequence[Column]) -> tuple[float, float]:
    """What nothing clearly beats in quality comes first, the fastest on top."""
    held = [good for c, good in sure.items() if good is not None and entry.cell(c).value is not None]
    if not held or not all(any(entry is e for e in good) for good in held):
        return 1.0, 0.0
    speed = next((entry.cell(c).value for c in columns if c.key == "images-per-second"), None)
    return 0.0, -(speed or 0.0)


def _rank(entry: Entry, columns: Sequence[Column]) -> tuple[float, ...]:
    """Measured rows first, then by the first column with a direction, and the next ones."""
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


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Configurations that have both a quality and a cost, and which of them nothing beats."""

    group: Group
    quality: Column
    cost: Column
    points: tuple[tuple[Entry, float, float], ...]  # with cost and quality
    best: tuple[int, ...]  # by rising cost

    @property
    def rising(self) -> list[int]:
        """All points by rising cost."""
        return sorted(range(len(self.points)), key=lambda i: self.points[i][1:])


def planes(group: Group) -> Iterator[Plane]:
    """Every pair of a quality and a cost that two configurations or more have."""
    costs = {c.key: c for c in group.columns if c.kind == "cost"}
    for quality in (c for c in group.columns if c.kind == "quality" and c.better):
        for cost in (costs[k] for k in COSTS if k in costs and not (k == "host-peak" and "host-added" in costs)):
            both = [(e, e.cell(cost).value, e.cell(quality).value) for e in group.newest]
            points = tuple((e, x, y) for e, x, y in both if x is not None and y is not None)
            if len(points) > 1:
                best = front([(x, y) for _, x, y in points], larger_is_better=quality.better == "higher")
                yield Plane(group=group, quality=quality, cost=cost, points=points, best=tuple(best))
