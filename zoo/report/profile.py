"""Where the work goes: each stage's seconds where a record has them, else its network evaluations."""

from __future__ import annotations

from zoo.report.groups import Entry, Group
from zoo.report.leaderboard import few, title
from zoo.report.markup import Markup, element, region
from zoo.report.model import Part
from zoo.report.plots import SERIES, legend_marker, stacked_bars
from zoo.report.ticks import written

MOST = 10  # bars of one plot; the table has them all


def section(shown: list[Group]) -> list[Markup]:
    """Bars and a table for each group and unit."""
    parts: list[Markup] = []
    for g, group in enumerate(shown):
        plots = [
            found
            for u, (unit, what) in enumerate((("s", "seconds of a call"), ("", "network evaluations")))
            if (found := _profile(group, unit, what, f"profile-{g}-{u}")) is not None
        ]
        if plots:
            parts.append(title(group))
            parts += plots
    return parts


def _profile(group: Group, unit: str, what: str, identity: str) -> Markup | None:
    entries = [e for e in group.newest if any(p.unit == unit for p in e.row.parts)]
    names = list(dict.fromkeys(p.name for e in entries for p in e.row.parts if p.unit == unit))
    if not any(len(_of(e, unit)) > 1 for e in entries):  # one part is the whole, which the leaderboard tells
        return None
    series = {name: i for i, name in enumerate(names)}
    bars = [(group.label(e.row), [(series[p.name], p.name, p.value) for p in _of(e, unit)]) for e in entries[:MOST]]
    legend = element(
        "ul", [element("li", legend_marker(i), n) for n, i in series.items() if i < SERIES], class_="legend"
    )
    name = f"{what} by part"
    plot = stacked_bars(bars, identity=identity, title=name, unit=unit)
    heads = [
        element("th", n, scope="col", class_="number" if i else None) for i, n in enumerate(("configuration", *names))
    ]
    rows = []
    for entry in entries:
        values = {p.name: p.value for p in _of(entry, unit)}
        total = sum(values.values())
        cells = [_share(values.get(n), total, unit) for n in names]
        rows.append(element("tr", element("th", group.label(entry.row), scope="row"), cells))
    table = element(
        "table",
        element("thead", element("tr", heads)),
        element("tbody", rows, data_few=few(rows)),
        class_="plain parts",
    )
    drawn = element("figure", element("figcaption", element("strong", name)), legend, plot)
    told = dict.fromkeys(e.row.timed for e in entries if e.row.timed) if unit == "s" else {}
    left = f"The first {len(bars)} of {len(entries)} are drawn. " if len(bars) < len(entries) else ""
    about = element("p", left + ("Timed: " + "; ".join(told) + "." if told else ""), class_="aside")
    numbers = element("div", region(table, f"Numbers: {name}"), about if left or told else None)
    return element("div", drawn, numbers, class_="split")


def _share(value: float | None, total: float, unit: str) -> Markup:
    if value is None:
        return element("td", "–", class_="number")
    share = element("span", f"{100 * value / total:.0f} %", class_="terms") if total > 0 else None
    return element("td", written(value, unit, 3), share, class_="number")


def _of(entry: Entry, unit: str) -> list[Part]:
    return [p for p in entry.row.parts if p.unit == unit]
