"""The page: one HTML file with everything in it, which loads nothing and runs no script but its own.

`page.html` draws what is gathered here. Every text of a record is escaped there, and made `visible` before. The page's
content security policy allows the style and the script by their hashes and images as data URIs; so even an injected
element could neither run nor load.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from zoo.bench.report.answer import answer
from zoo.bench.report.choice import choices
from zoo.bench.report.groups import Entry, Group, Plane, groups, planes
from zoo.bench.report.leaderboard import ONCE, TIMED, Board
from zoo.bench.report.model import Column, Record
from zoo.bench.report.pictures import Picture, picture
from zoo.bench.report.plots import SERIES, Drawing, Point, marker, pareto_plot, plain, stacked_bars, written
from zoo.bench.report.standing import margins

LONGEST = 400  # characters of one text; longer ones are cut
FEW = 10  # rows that are shown before all are requested
ANSWERS = 8  # of one page
BARS = 10  # of one plot; the table has them all
PICTURES = 48 * 2**20  # characters of images in one page
_COLOURED = ("model", "sampler", "precision", "device", "library", "guidance")  # what a front's colours show
_HERE = Path(__file__).parent


def page(records: Sequence[Record], title: str = "zoo report") -> str:
    """The report of records, as HTML."""
    shown = groups(records)
    return rendered(
        "page.html", title, told=_told(records, shown), records=records,
        answers=[answer(choice) for choice in islice((c for group in shown for c in choices(group)), ANSWERS)],
        boards=[Board(group) for group in shown], fronts=[(g, found) for g in shown if (found := _fronts(g))],
        samples=list(_samples(shown)), profiles=[(g, found) for g in shown if (found := list(_profiles(g)))],
        pairs=[(record, pair) for record in records for pair in record.pairs], compared=_compared(shown),
    )  # fmt: skip


def rendered(template: str, title: str, **content: Any) -> str:
    """A page of this template, with the style and the script that all have."""
    style, script = (Markup((_HERE / f"page.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))
    policy = policy_of(style, script)
    return (
        environment().get_template(template).render(title=title, style=style, script=script, policy=policy, **content)
    )


def policy_of(style: str, script: str) -> str:
    """A content security policy that allows this style and this script, and images in the page."""
    return (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; style-src 'sha256-{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def environment() -> Environment:
    """Templates whose every expression is escaped; they may be indented, since no line break of theirs is kept."""

    def source(name: str) -> str:
        return re.sub(r"\n *", "", (_HERE / name).read_text(encoding="utf-8"))

    made = Environment(autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(source), finalize=_shown)
    made.filters |= {"written": written, "plain": plain, "breakable": _breakable, "parts": _parts, "few": _few}
    made.globals |= {"legend_marker": lambda series: [marker(series, 8, 8)], "SERIES": SERIES}
    return made


def visible(text: object) -> str:
    """A text as it may be shown: invisible and direction-changing characters become U+FFFD, long texts are cut."""
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


def _parts(name: str) -> list[str]:
    """A scalar's name in the parts that it may be broken before."""
    return re.split(r"(?<=[/_])", visible(name))


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


def _fronts(group: Group) -> list[dict[str, Any]]:
    """By quality: its planes drawn, and the dimension that their colours show."""
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
    """The images of every row that names some, and what they all are of."""
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
        if not any(len(parts) > 1 for _, parts in rows):  # one part is the whole, which the leaderboard shows
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
    """The data of the page's comparison of two rows: columns, and rows with their cells by column.

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
         "timed": c.key in (*TIMED, "seconds-per-image", "latency-p90"), "once": c.key in ONCE}
        for c in columns
    ]  # fmt: skip
    text = json.dumps({"columns": told, "rows": rows}, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # Inside a script element: nothing in it can end the element.
    return Markup(re.sub("[<>&]", lambda m: f"\\u{ord(m[0]):04x}", text)) if len(rows) > 1 else None
