"""Run against run: the data that the page's script sets two rows side by side from, and pairs of libraries.

Values travel with the number of their `Column`; the script only ever compares equal numbers, so what the model keeps
apart stays apart.
"""

from __future__ import annotations

import json
from typing import Any

from zoo.report.groups import Group
from zoo.report.leaderboard import ONCE, heading
from zoo.report.markup import Markup, element, own, region, visible
from zoo.report.model import Column, Pair, Record
from zoo.report.noise import margins
from zoo.report.ticks import plain, written

_TIMED = ("images-per-second", "seconds-per-image", "latency-p50", "latency-p90", "energy", "share-of-peak")


def data(shown: list[Group]) -> dict[str, Any]:
    """Columns, and rows with their cells by column."""
    columns: dict[Column, int] = {}
    rows: list[dict[str, Any]] = []
    for group in shown:
        margin = {c: margins([e.cell(c) for e in group.entries]) for c in group.columns}
        for i, entry in enumerate(group.entries):
            cells: dict[int, dict[str, Any]] = {}
            for column, cell in entry.row.cells.items():
                if cell.value is not None:
                    number = columns.setdefault(column, len(columns))
                    cells[number] = {"v": cell.value, "t": written(cell.value, column.unit), "d": margin[column][i]}
            if cells:
                when = entry.record.when[:16].replace("T", " ")
                rows.append({
                    "name": visible(group.label(entry.row)), "group": visible(heading(group)),
                    "run": visible(f"{entry.record.name}, {when}"), "place": visible(group.place),
                    "noise": entry.row.noise, "cells": cells,
                    "asked": {k: visible(v) for k, v in entry.row.asked.items()},
                })  # fmt: skip
    told = [
        {"name": visible(c.name), "key": visible(c.key) if c.kind == "quality" else "", "better": c.better,
         "terms": visible(", ".join(c.terms if c.kind == "quality" else c.terms[1:])), "cost": c.kind == "cost",
         "timed": c.key in _TIMED, "once": c.key in ONCE}
        for c in columns
    ]  # fmt: skip
    return {"columns": told, "rows": rows}


def embedded(value: dict[str, Any]) -> Markup:
    """JSON inside a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return own(text)


def section(value: dict[str, Any]) -> list[Markup]:
    """The form that the script fills; without a script, where the numbers are."""
    if len(value["rows"]) < 2:
        return []
    choices = [
        element("label", letter, element("select", data_side=letter, aria_label=f"Run {letter}"))
        for letter in ("A", "B")
    ]
    told = "Only values under one key, and speeds of one machine, are held against each other."
    swap = element("button", "swap", type="button", data_swap=True)
    return [
        element("p", told, class_="aside"),
        element("form", choices, swap, class_="filters", id="sides"),
        region(own(""), "A against B", id="compared", aria_live="polite"),
        element("noscript", element("p", "This part needs JavaScript; the leaderboard has the same numbers.")),
        element("script", embedded(value), type="application/json", id="data"),
    ]


def pairs(records: list[Record]) -> Markup | None:
    """Against other libraries: the ratio of every pair."""
    found = [(record, pair) for record in records for pair in record.pairs]
    if not found:
        return None
    names = {"what": None, "peer": None, "ratio, median": "number", "lowest to highest": "number", "outputs": None,
             "run": None}  # fmt: skip
    heads = [element("th", name, scope="col", class_=class_) for name, class_ in names.items()]
    rows = [
        element("tr", _pair(pair), element("td", element("span", f"{r.name}, {r.when[:10]}", class_="terms")))
        for r, pair in found
    ]
    table = element("table", element("thead", element("tr", heads)), element("tbody", rows), class_="plain")
    return region(table, "Against other libraries")


def _pair(pair: Pair) -> list[Markup]:
    spread = f"{plain(min(pair.ratios), 3)} to {plain(max(pair.ratios), 3)}" if pair.ratios else "–"
    agrees = {True: ("agree", "badge good"), False: ("differ", "badge bad"), None: ("", "")}[pair.agrees]
    badge = element("span", agrees[0], class_=agrees[1]) if agrees[0] else None
    reason = element("span", pair.reason, class_="note") if pair.reason else None
    return [
        element("th", element("span", pair.name, class_="name"), reason, scope="row"),
        element("td", pair.peer),
        element("td", "–" if pair.ratio is None else f"{plain(pair.ratio, 3)} ×", class_="number"),
        element("td", spread, class_="number"),
        element("td", badge, element("span", pair.agreement, class_="terms") if pair.agreement else None),
    ]
