"""The page: one HTML file with everything in it, which asks nobody for anything and runs no script but its own.

`page.html` draws what is gathered here. Every text of a record is escaped there, and made `visible` before. The page's
content security policy allows the style and the script by their hashes and pictures as data URIs; so even an element
that came through by some mistake could neither run nor load.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from zoo.report.answer import answer
from zoo.report.choice import choices
from zoo.report.groups import Entry, Group, Plane, groups, planes
from zoo.report.model import Column, Record
from zoo.report.pictures import Picture, picture
from zoo.report.plots import SERIES, Drawing, Point, marker, pareto_plot, plain, stacked_bars, written
from zoo.report.standing import faster, margins, unbeaten

LONGEST = 400  # characters of one text; what a record says beyond that no page has room for
FACETS = 8  # a dimension with more values than this is filtered by text
FEW = 10  # rows that are shown before all are asked for
ANSWERS = 8  # of one page
BARS = 10  # of one plot; the table has them all
PICTURES = 48 * 2**20  # characters of pictures in one page
ONCE = ("host-peak", "host-added")  # the process's history is in them, and nothing tells how far they spread
_HIDDEN = ("seconds-per-image", "latency-p90", "host-added")  # told by or beneath another; CSV has them apart
_BENEATH = {"latency-p50": ("latency-p90", "latency of a batch, p90", "p90"),
            "host-peak": ("host-added", "host memory of a call", "a call adds")}  # fmt: skip
_TIMED = ("images-per-second", "latency-p50", "energy", "share-of-peak")  # as noisy as the clock
_COLOURED = ("model", "sampler", "precision", "device", "library", "guidance")  # what colours of a front tell apart
_HERE = Path(__file__).parent


def page(records: Sequence[Record], title: str = "zoo report") -> str:
    """The report of records, as HTML."""
    shown = groups(records)
    style, script = (Markup((_HERE / f"page.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; style-src 'sha256-{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment().get_template("page.html").render(
        title=title, style=style, script=script, policy=policy, told=_told(records, shown), records=records,
        answers=[answer(choice) for choice in islice((c for group in shown for c in choices(group)), ANSWERS)],
        boards=[Board(group) for group in shown], fronts=[(g, found) for g in shown if (found := _fronts(g))],
        samples=list(_samples(shown)), profiles=[(g, found) for g in shown if (found := list(_profiles(g)))],
        pairs=[(record, pair) for record in records for pair in record.pairs], compared=_compared(shown),
    )  # fmt: skip


def environment() -> Environment:
    """Templates whose every expression is escaped; they may be indented, since no line break of theirs is kept."""

    def source(name: str) -> str:
        return re.sub(r"\n *", "", (_HERE / name).read_text(encoding="utf-8"))

    made = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(source), finalize=_shown)
    made.filters |= {"written": written, "plain": plain, "breakable": _breakable, "few": _few}
    made.globals |= {"legend_marker": lambda series: [marker(series, 8, 8)], "SERIES": SERIES}
    return made


def visible(text: object) -> str:
    """A text as it may be shown: what can't be seen or turns writing round becomes U+FFFD, what is too long ends."""
    said = str(text)
    shown = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in said[: LONGEST + 1])
    return shown[:LONGEST] + "…" if len(said) > LONGEST else shown


def _shown(value: Any) -> Any:
    """What an expression of a template becomes before it is escaped; a coordinate is short."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return "" if value is None else visible(value)


def _breakable(key: str) -> list[str]:
    """A metric's key in the parts that it may be broken before."""
    return re.split(r"(?<=[\[,])|(?=@)", visible(key))


def _few(shown: Sequence[object]) -> int | None:
    """How many the page shows at first, where that is not all."""
    return FEW if len(shown) > FEW else None


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _told(records: Sequence[Record], shown: Sequence[Group]) -> str:
    days = sorted(r.when[:10] for r in records if r.when)
    counted = {
        "record": len(records), "configuration": sum(len(g.entries) for g in shown),
        "machine setup": len({r.place for r in records}),
    }  # fmt: skip
    span = "" if not days else f", {days[0]}" if days[0] == days[-1] else f", {days[0]} to {days[-1]}"
    return " · ".join(f"{count} {what}{'s' if count != 1 else ''}" for what, count in counted.items()) + span


@dataclass(eq=False)
class Board:
    """A group's table, the best first, which a reader can sort and filter."""

    group: Group

    @cached_property
    def columns(self) -> list[Column]:
        """Those that are shown."""
        return [c for c in self.group.columns if c.key not in _HIDDEN]

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
        elif column.key in _TIMED:
            spread = max((e.row.noise for e, _ in held if e.row.noise is not None), default=0.0)
            fine = [not faster(max(v, top), min(v, top), spread) for v in values]
        return [] if all(fine) else [e for (e, _), good in zip(held, fine, strict=True) if good]

    @cached_property
    def quality_terms(self) -> str:
        """What the columns of quality are of beside their keys; nothing where only that tells two of them apart."""
        found = {c: ", ".join(c.terms) for c in self.columns if c.kind == "quality"}
        if len(set(found.values())) == 1:
            return f"quality: {next(iter(found.values()))}" if any(found.values()) else ""
        alike = len({c.name for c in found}) < len(found)
        return "" if alike else "; ".join(f"{c.name}: {said}" for c, said in found.items() if said)

    def terms(self, column: Column) -> list[str]:
        """What the place and the sentence above the table don't say already."""
        return list(column.terms[1:] if column.kind == "cost" else () if self.quality_terms else column.terms)

    def floor(self, column: Column) -> float | None:
        """The floor, where it is one for the whole column."""
        found = {c.floor for e in self.group.entries if (c := e.cell(column)).value is not None}
        return found.pop() if len(found) == 1 else None

    def doubt(self, column: Column) -> str:
        """What keeps a measure from telling configurations apart."""
        held = [c for e in self.measured if (c := e.cell(column)).value is not None]
        if column.kind != "quality" or column.better is None or len(held) < 2 or self.best[column]:
            return ""
        return "no error bar: ranks nothing" if None in margins(held) else "all alike within the noise"

    @property
    def told(self) -> str:
        """What is above the table."""
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
        """What is told in small beneath a value: its spread, its floor, the slow runs beneath the middle one."""
        cell, said = entry.cell(column), []
        if cell.low is not None and cell.high is not None:
            said.append(f"{written(cell.low, column.unit, 3)} to {written(cell.high, column.unit, 3)}")
        elif cell.deviation is not None:
            said.append(f"± {written(cell.deviation, column.unit, 2)}")
        if cell.floor is not None and self.floor(column) is None:
            said.append(f"floor {written(cell.floor, column.unit, 3)}")
        if column.key in _BENEATH:
            key, name, label = _BENEATH[column.key]
            value = entry.cell(replace(column, key=key, name=name)).value
            said += [] if value is None else [f"{label} {written(value, column.unit, 3)}"]
        return said

    def share(self, value: float, column: Column) -> float | None:
        """The value's percent of the largest: a column is seen at a glance."""
        values = [v for e in self.group.entries if (v := e.cell(column).value) is not None]
        return None if len(values) < 2 or min(values) < 0 or max(values) <= 0 else 100 * value / max(values)


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _fronts(group: Group) -> list[dict[str, Any]]:
    """By quality: its planes drawn, and the dimension that their colours tell apart."""
    fronts = []
    for quality, found in groupby(planes(group), key=lambda plane: plane.quality):
        every = list(found)
        entries = [e for plane in every for e, _, _ in plane.points]
        unsure = None in margins([e.cell(quality) for e in entries])
        dimension, names = "model", [""]
        for one in _COLOURED:
            values = list(dict.fromkeys(e.row.asked.get(one, "none") for e in entries))
            if len(values) > 1:
                dimension, names = one, values
                break
        plots = [(plane, _plot(plane, dimension, names)) for plane in every]
        # Beyond the last colour they share it.
        fronts.append({
            "quality": quality, "unsure": unsure, "plots": plots,
            "names": [*names[: SERIES - 1], "other"] if len(names) > SERIES else names,
        })  # fmt: skip
    return fronts


def _plot(plane: Plane, dimension: str, names: Sequence[str]) -> Drawing:
    points, quality, cost = [], plane.quality, plane.cost
    for entry, x, y in plane.points:
        cell, label = entry.cell(quality), visible(plane.group.label(entry.row))
        low, high = cell.low, cell.high
        if low is None and cell.deviation is not None:
            low, high = y - cell.deviation, y + cell.deviation
        said = f"{label}: {quality.name} {written(y)}, {cost.name} {written(x, cost.unit)}"
        series = names.index(entry.row.asked.get(dimension, "none")) if len(names) > 1 else 0
        points.append(Point(x, y, label, said, series, low, high))
    return pareto_plot(
        points, plane.best, cost=cost.name, cost_unit=cost.unit, quality=visible(quality.name),
        larger_is_better=quality.better == "higher",
    )  # fmt: skip


def _samples(shown: Sequence[Group]) -> Iterator[tuple[Group, list[tuple[Entry, list[Picture]]], str | None]]:
    """The pictures of every row that names some, and what they all are of."""
    room = PICTURES
    for group in shown:
        rows = []
        for entry in (e for e in group.newest if e.row.samples):
            found = [picture(entry.record.path.parent, name) for name in entry.row.samples]
            room -= sum(len(p.uri) for p in found if p.uri is not None)
            if room < 0:
                found = [Picture(uri=None, reason="left out: the page would be too large") for _ in found]
            rows.append((entry, found))
        told = {entry.row.sampled for entry, _ in rows}
        if rows:
            yield group, rows, told.pop() if len(told) == 1 else None


def _profiles(group: Group) -> Iterator[dict[str, Any]]:
    """Bars and numbers of each unit: each stage's seconds where a record has them, else its network evaluations."""
    for unit, what in (("s", "seconds of a call"), ("", "network evaluations")):
        rows = [(e, {p.name: p.value for p in e.row.parts if p.unit == unit}) for e in group.newest]
        rows = [(e, parts) for e, parts in rows if parts]
        if not any(len(parts) > 1 for _, parts in rows):  # one part is the whole, which the leaderboard tells
            continue
        names = list(dict.fromkeys(name for _, parts in rows for name in parts))
        bars = [
            (visible(group.label(e.row)), [(names.index(n), visible(n), v) for n, v in parts.items()])
            for e, parts in rows[:BARS]
        ]
        left = f"The first {BARS} of {len(rows)} are drawn. " if len(rows) > BARS else ""
        timed = "; ".join(dict.fromkeys(e.row.timed for e, _ in rows if e.row.timed)) if unit == "s" else ""
        yield {
            "group": group, "name": f"{what} by part", "unit": unit, "names": names, "rows": rows,
            "plot": stacked_bars(bars, title=f"{what} by part", unit=unit),
            "about": left + (f"Timed: {timed}." if timed else ""),
        }  # fmt: skip


def _compared(shown: Sequence[Group]) -> Markup | None:
    """What the page's script sets two rows side by side from: columns, and rows with their cells by column.

    Values travel with the number of their `Column`; the script only ever compares equal numbers, so what the model
    keeps apart stays apart. None where there is nothing to compare with.
    """
    columns: dict[Column, int] = {}
    rows: list[Mapping[str, Any]] = []
    for group in shown:
        margin = {c: margins([e.cell(c) for e in group.entries]) for c in group.columns}
        for i, entry in enumerate(group.entries):
            row, record = entry.row, entry.record
            cells = {
                columns.setdefault(c, len(columns)): {"v": x.value, "t": written(x.value, c.unit), "d": margin[c][i]}
                for c, x in row.cells.items() if x.value is not None
            }  # fmt: skip
            run = f"{record.name}, {record.when[:16].replace('T', ' ')}"
            texts = {"name": group.label(row), "group": group.name, "run": run, "place": group.place}
            asked = {name: visible(said) for name, said in row.asked.items()}
            rows += [{**{k: visible(v) for k, v in texts.items()}, "noise": row.noise, "cells": cells, "asked": asked}
                     ] if cells else []  # fmt: skip
    told = [
        {"name": visible(c.name), "key": visible(c.key) if c.kind == "quality" else "", "better": c.better,
         "terms": visible(", ".join(c.terms if c.kind == "quality" else c.terms[1:])), "cost": c.kind == "cost",
         "timed": c.key in (*_TIMED, "seconds-per-image", "latency-p90"), "once": c.key in ONCE}
        for c in columns
    ]  # fmt: skip
    text = json.dumps({"columns": told, "rows": rows}, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Inside a script element: nothing in it can end the element.
    return Markup(re.sub("[<>&]", lambda m: f"\\u{ord(m[0]):04x}", text)) if len(rows) > 1 else None
