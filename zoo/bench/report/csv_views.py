"""The same views as CSV, for a spreadsheet or pandas: leaderboard, fronts, profile, pairs, and every single value."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

from zoo.bench.report.groups import groups, planes
from zoo.bench.report.model import DIMENSIONS, Column, Record
from zoo.schema.files import write_text

Value = str | int | float | None


def views(records: Sequence[Record]) -> dict[str, str]:
    """CSV text by file name. A field that a spreadsheet would run as a formula begins with an apostrophe."""
    shown = groups(records)
    entries = [(g, e) for g in shown for e in g.entries]
    columns = list(dict.fromkeys(c for g in shown for c in g.columns))
    who = ("record", "when", "configuration", "place")
    board = [
        (e.record.path.name, e.record.when, e.row.name, e.row.place, e.row.identity, e.row.status, e.row.reason,
         *(e.row.asked.get(d) for d in DIMENSIONS), int(e.row.random_weights), *(e.cell(c).value for c in columns))
        for _, e in entries
    ]  # fmt: skip
    values = [
        (e.record.path.name, e.record.when, e.row.name, e.row.place, c.kind, c.key, "; ".join(c.terms), c.unit,
         c.better, x.value, x.deviation, x.low, x.high, x.floor, x.reason)
        for _, e in entries for c, x in e.row.cells.items()
    ]  # fmt: skip
    pareto = [
        (e.record.path.name, e.record.when, e.row.name, e.row.place, p.quality.key, "; ".join(p.quality.terms),
         p.quality.better, y, p.cost.key, p.cost.unit, x, int(i in p.best))
        for g in shown for p in planes(g) for i, (e, x, y) in enumerate(p.points)
    ]  # fmt: skip
    profile = [
        (e.record.path.name, e.record.when, e.row.name, e.row.place, part.name, part.unit or "evaluations", part.value)
        for _, e in entries for part in e.row.parts
    ]  # fmt: skip
    pairs = [
        (r.path.name, r.when, p.name, r.place, p.peer, p.what, p.ratio, min(p.ratios, default=None),
         max(p.ratios, default=None), None if p.agrees is None else int(p.agrees), p.agreement, p.reason)
        for r in records for p in r.pairs
    ]  # fmt: skip
    facts = [(r.path.name, r.when, r.name, r.place, f.path, f.value) for r in records for f in r.facts]
    dimensions = (*who, "id", "status", "reason", *DIMENSIONS, "random_weights")
    keyed = ("kind", "key", "terms", "unit", "better", "value", "deviation", "low", "high", "floor", "reason")
    compared = ("quality", "quality_terms", "better", "quality_value", "cost", "cost_unit", "cost_value", "on_front")
    ratios = ("peer", "what", "ratio", "lowest", "highest", "agrees", "agreement", "reason")
    return {
        "leaderboard.csv": _csv((*dimensions, *map(_head, columns)), board),
        "values.csv": _csv((*who, *keyed), values),
        "pareto.csv": _csv((*who, *compared), pareto),
        "profile.csv": _csv((*who, "part", "unit", "value"), profile),
        "pairs.csv": _csv((*who, *ratios), pairs),
        "facts.csv": _csv((*who, "measured", "value"), facts),
    }


def write_views(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write the views into a folder; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_text(folder / name, text) for name, text in views(records).items()]


def _head(column: Column) -> str:
    """All that a column's values have in common: different columns have different heads."""
    unit = f" [{column.unit}]" if column.unit else ""
    return " | ".join((column.key + unit, *column.terms))


def _csv(head: Iterable[str], rows: Iterable[Iterable[Value]]) -> str:
    out = StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    writer.writerow([_field(name) for name in head])
    writer.writerows([_field(value) for value in row] for row in rows)
    return out.getvalue()


def _field(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "�")
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text
