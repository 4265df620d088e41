"""The leaderboard: a table a group, the best first, which a reader can sort and filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from zoo.report.groups import Entry, Group
from zoo.report.markup import Markup, element, join, key, own, region
from zoo.report.model import Cell, Column
from zoo.report.noise import faster, margins, unbeaten
from zoo.report.ticks import written

FACETS = 8  # a dimension with more values than this is filtered by text
_HIDDEN = ("seconds-per-image", "latency-p90", "host-added")  # told by or beneath another; CSV has them apart
_BENEATH = {"latency-p50": ("latency-p90", "latency of a batch, p90", "p90"),
            "host-peak": ("host-added", "host memory of a call", "a call adds")}  # fmt: skip
ONCE = ("host-peak", "host-added")  # the process's history is in them, and nothing tells how far they spread
_TIMED = ("images-per-second", "latency-p50", "energy", "share-of-peak")  # as noisy as the clock
FEW = 10  # rows that are shown before all are asked for


def few(shown: Sequence[object]) -> int | None:
    """How many the page shows at first, where that is not all."""
    return FEW if len(shown) > FEW else None


def heading(group: Group) -> str:
    """What a group is called: its machine, and its protocol where that is no suite."""
    return group.place if group.protocol == "suite" else f"{group.protocol}, {group.place}"


def title(group: Group) -> Markup:
    """The heading above a group's part of a section."""
    machine, _, versions = group.place.partition(" · ")
    name, small = (machine, versions) if group.protocol == "suite" else (group.protocol.capitalize(), group.place)
    return element("h3", name, " ", element("small", small, class_="place") if small else None)


def table(group: Group, identity: str) -> Markup:
    """A group's rows, with what filters them."""
    columns = [c for c in group.columns if c.key not in _HIDDEN]
    measured = [e for e in group.entries if e.row.status == "measured"]
    best = {column: _best(measured, column) for column in columns}
    shared = _terms(columns)
    head = [_sortable("configuration", text=True)]
    head += [_sortable("run", text=True)] if group.runs > 1 else []
    doubtful = {column: _doubt(measured, column, best[column]) for column in columns}
    head += [_head(group, column, doubtful[column], told=bool(shared)) for column in columns]
    board = element(
        "table", element("caption", f"Leaderboard: {heading(group)}", class_="unseen"),
        element("thead", element("tr", head)),
        element("tbody", [_row(group, e, columns, best) for e in measured], data_few=few(measured)),
        id=identity, class_="board", aria_describedby=f"{identity}-told",
    )  # fmt: skip
    return join([
        title(group), element("p", _told(group), class_="aside", id=f"{identity}-told"),
        _of(columns, shared) or own(""), _filters(group, measured, identity) if len(measured) > 3 else own(""),
        region(board, f"Leaderboard: {heading(group)}") if measured else own(""),
        _missing(group), _absent(group),
    ])  # fmt: skip


def _missing(group: Group) -> Markup:
    """What was asked for and could not be measured, and why."""
    rows = [
        element("li", element("strong", group.label(e.row)), " ", element("span", e.row.status, class_="badge bad"),
                element("span", ". ".join([*([e.row.reason] if e.row.reason else []), *e.row.notes]), class_="terms"))
        for e in group.entries if e.row.status != "measured"
    ]  # fmt: skip
    if not rows:
        return own("")
    return join([element("h4", "Asked for, but not measured"), element("ul", rows, class_="missing-rows")])


def _terms(columns: Sequence[Column]) -> str:
    """What the columns of quality are of beside their keys; nothing where only that tells two of them apart."""
    found = {c: ", ".join(c.terms) for c in columns if c.kind == "quality"}
    if len(set(found.values())) == 1:
        return f"quality: {next(iter(found.values()))}" if any(found.values()) else ""
    names = [c.name for c in found]
    return "" if len(set(names)) < len(names) else "; ".join(f"{c.name}: {said}" for c, said in found.items() if said)


def _of(columns: Sequence[Column], terms: str) -> Markup | None:
    if not terms:
        return None
    names = [c.name for c in columns if c.kind == "quality"]
    said = f"What {' and '.join(names)} {'is' if len(names) == 1 else 'are'} measured on"
    return element("details", element("summary", said), element("p", terms), class_="aside")


def _told(group: Group) -> str:
    count = sum(e.row.status == "measured" for e in group.entries)
    parts = [f"{count} configuration{'s' if count != 1 else ''}"]
    if count > 1 and any(c.kind == "quality" for c in group.columns):
        parts.append("first those that nothing clearly beats in quality, the fastest of them on top")
    usual = [f"{name} {value}" for name, value in group.usual.items() if value not in (None, "no")]
    if usual:
        otherwise = "" if count == 1 or not set(group.usual) & set(group.varied) else " where not said otherwise"
        parts.append(", ".join(usual) + otherwise)
    noise = [e.row.noise for e in group.entries if e.row.noise is not None]
    if noise:
        parts.append(f"repeats spread by {100 * max(noise):.2g} %, differences of speed below twice that mean nothing")
    return "; ".join(parts) + "."


def _sortable(name: str, *children: Markup | None, text: bool = False, better: str | None = None) -> Markup:
    arrow = {"higher": "↑", "lower": "↓"}.get(better or "")
    meant = element("span", f" ({better} is better)", class_="unseen") if better else None
    button = element(
        "button", name, element("span", arrow, class_="better", aria_hidden="true") if arrow else None, meant,
        type="button", data_text=text, data_better=better,
    )  # fmt: skip
    classes = None if text else "number judged" if any(children) else "number"
    return element("th", button, *children, scope="col", aria_sort="none", class_=classes)


def _head(group: Group, column: Column, doubt: str, *, told: bool) -> Markup:
    """A column's head; what the place and the sentence above the table say already is left out."""
    terms = ", ".join(column.terms[1:] if column.kind == "cost" else () if told else column.terms)
    floor = _floor(group, column)
    return _sortable(
        column.name, key(column.key) if column.kind == "quality" else None,
        element("span", terms, class_="terms") if terms else None,
        element("span", f"floor {written(floor, column.unit)}", class_="terms") if floor is not None else None,
        element("span", doubt, class_="terms doubt") if doubt else None,
        better=column.better,
    )  # fmt: skip


def _floor(group: Group, column: Column) -> float | None:
    """The floor, where it is one for the whole column."""
    found = {c.floor for e in group.entries if (c := e.cell(column)).value is not None}
    return next(iter(found)) if len(found) == 1 else None


def _row(group: Group, entry: Entry, columns: Sequence[Column], best: Mapping[Column, set[int]]) -> Markup:
    row = entry.row
    badges = [element("span", "random weights", class_="badge")] if row.random_weights else []
    said = [*([row.reason] if row.reason else []), *row.notes]
    name = element(
        "th", element("span", group.label(row), class_="name"), badges,
        [element("span", sentence, class_="note") for sentence in said], scope="row", data_v=group.label(row),
    )  # fmt: skip
    facets = {f"data_{d}": row.asked.get(d, "none") for d in group.varied}
    incomplete = None if entry.record.complete else element("span", "incomplete", class_="badge bad")
    run = element(
        "td", element("span", entry.record.when[:10], class_="value"),
        element("span", entry.record.when[11:16], class_="terms"), incomplete, data_v=entry.record.when,
    )  # fmt: skip
    cells = [_cell(group, entry, column, id(entry) in best[column]) for column in columns]
    return element("tr", name, run if group.runs > 1 else None, cells, **facets)


def _cell(group: Group, entry: Entry, column: Column, best: bool) -> Markup:
    cell = entry.cell(column)
    if cell.value is None:
        why = cell.reason or (entry.row.unjudged if column.kind == "quality" else None)
        reason = element("span", why, class_="terms") if why else None
        return element("td", "–", element("span", "no value", class_="unseen"), reason, class_="number")
    parts = [said for said in (_spread(cell, column), _own_floor(group, cell, column), _beneath(entry, column)) if said]
    return element(
        "td", element("span", written(cell.value, column.unit), class_="value"),
        element("span", " best", class_="unseen") if best else None,
        element("span", " · ".join(parts), class_="terms") if parts else None, _bar(group, column, cell.value),
        class_="number best" if best else "number", data_v=repr(cell.value),
    )  # fmt: skip


def _spread(cell: Cell, column: Column) -> str:
    if cell.low is not None and cell.high is not None:
        return f"{written(cell.low, column.unit, 3)} to {written(cell.high, column.unit, 3)}"
    return "" if cell.deviation is None else f"± {written(cell.deviation, column.unit, 2)}"


def _own_floor(group: Group, cell: Cell, column: Column) -> str:
    if cell.floor is None or _floor(group, column) is not None:
        return ""
    return f"floor {written(cell.floor, column.unit, 3)}"


def _beneath(entry: Entry, column: Column) -> str:
    """What is told in small beneath a value: the slow runs beneath the middle one, a call's share of the memory."""
    if column.key not in _BENEATH:
        return ""
    other, name, said = _BENEATH[column.key]
    value = entry.cell(replace(column, key=other, name=name)).value
    return "" if value is None else f"{said} {written(value, column.unit, 3)}"


def _best(measured: Sequence[Entry], column: Column) -> set[int]:
    """The rows whose value nothing beats by more than the noise; none where that would be every row, or isn't known."""
    held = [(e, v) for e in measured if (v := e.cell(column).value) is not None]
    if column.better is None or column.key in ONCE or len({v for _, v in held}) < 2:
        return set()
    values = [v for _, v in held]
    top = max(values) if column.better == "higher" else min(values)
    if column.kind == "quality":
        found = margins([e.cell(column) for e, _ in held])
        fine = [False] * len(held) if None in found else unbeaten(list(zip(values, found, strict=True)), column.better)
    elif column.key in _TIMED:
        spread = max((e.row.noise for e, _ in held if e.row.noise is not None), default=0.0)
        fine = [not faster(max(v, top), min(v, top), spread) for v in values]
    else:
        fine = [v == top for v in values]
    return set() if all(fine) else {id(e) for (e, _), good in zip(held, fine, strict=True) if good}


def _doubt(measured: Sequence[Entry], column: Column, best: set[int]) -> str:
    """What keeps a measure from telling configurations apart."""
    held = [c for e in measured if (c := e.cell(column)).value is not None]
    if column.kind != "quality" or column.better is None or len(held) < 2 or best:
        return ""
    return "no error bar: ranks nothing" if None in margins(held) else "all alike within the noise"


def _bar(group: Group, column: Column, value: float) -> Markup | None:
    """The value's share of the largest: a column is seen at a glance."""
    values = [v for e in group.entries if (v := e.cell(column).value) is not None]
    if len(values) < 2 or min(values) < 0 or max(values) <= 0:
        return None
    bar = element("rect", width=100 * value / max(values), height=3, rx=1)
    return element("svg", bar, viewBox="0 0 100 3", preserveAspectRatio="none", class_="share", aria_hidden="true")


def _filters(group: Group, measured: Sequence[Entry], identity: str) -> Markup:
    fields = [
        element(
            "label", "Find", element("input", type="search", data_find=True, placeholder="ddim 10", autocomplete="off")
        )
    ]
    for dimension in group.varied:
        values = sorted({e.row.asked.get(dimension, "none") for e in measured}, key=_natural)
        if 2 <= len(values) <= FACETS:
            options = [element("option", "all", value="")] + [element("option", v, value=v) for v in values]
            fields.append(
                element("label", dimension.replace("_", " "), element("select", options, data_facet=dimension))
            )
    told = element("output", f"{len(measured)} configurations", aria_live="polite")
    return element(
        "form", fields, told, class_="filters", data_filters=identity, aria_label=f"Filter: {heading(group)}"
    )


def _natural(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _absent(group: Group) -> Markup:
    if not group.absent:
        return own("")
    said = [f"{name} ({why})" if why else name for name, why in group.absent]
    return element("p", "No values of: " + "; ".join(said) + ".", class_="aside")
