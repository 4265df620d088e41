"""Pareto fronts: for each measure of quality, over time, memory and network evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zoo.report.groups import Entry, Group
from zoo.report.leaderboard import title
from zoo.report.markup import Markup, element, key, region
from zoo.report.model import Column
from zoo.report.noise import margins
from zoo.report.pareto import front
from zoo.report.plots import SERIES, Point, legend_marker, pareto_plot
from zoo.report.ticks import written

COSTS = ("seconds-per-image", "host-added", "host-peak", "device-peak", "evaluations")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Configurations that have both a quality and a cost, and which of them nothing beats."""

    group: Group
    quality: Column
    cost: Column
    entries: tuple[Entry, ...]
    best: frozenset[int]

    def places(self) -> list[tuple[float, float]]:
        """(cost, quality) of each."""
        return [_place(e, self.cost, self.quality) for e in self.entries]


def _place(entry: Entry, cost: Column, quality: Column) -> tuple[float, float]:
    x, y = entry.cell(cost).value, entry.cell(quality).value
    assert x is not None
    assert y is not None
    return x, y


def planes(group: Group) -> Iterator[Plane]:
    """Every pair of a quality and a cost that two configurations or more have."""
    for quality in (c for c in group.columns if c.kind == "quality" and c.better):
        own = {c.key for c in group.columns}
        for asked in (k for k in COSTS if not (k == "host-peak" and "host-added" in own)):
            for cost in (c for c in group.columns if c.key == asked and c.kind == "cost"):
                entries = tuple(
                    e for e in group.newest if e.cell(cost).value is not None and e.cell(quality).value is not None
                )
                if len(entries) < 2:
                    continue
                best = front([_place(e, cost, quality) for e in entries], larger_is_better=quality.better == "higher")
                yield Plane(group=group, quality=quality, cost=cost, entries=entries, best=frozenset(best))


def section(shown: list[Group]) -> list[Markup]:
    """Every plane, by group and quality; the first quality of a group is open."""
    parts: list[Markup] = []
    for g, group in enumerate(shown):
        by_quality: dict[Column, list[Plane]] = {}
        for plane in planes(group):
            by_quality.setdefault(plane.quality, []).append(plane)
        if not by_quality:
            continue
        parts.append(title(group))
        for q, (quality, found) in enumerate(by_quality.items()):
            series, names = _series([e for plane in found for e in plane.entries])
            plots = [_figure(plane, series, names, f"front-{g}-{q}-{i}") for i, plane in enumerate(found)]
            summary = element(
                "summary", quality.name, " ", key(quality.key),
                element("span", f"{quality.better} is better", class_="terms"),
            )  # fmt: skip
            legend = _legend(names) if len(names) > 1 else None
            parts.append(
                element(
                    "details",
                    summary,
                    legend,
                    element("p", _chance(found), class_="aside"),
                    element("div", plots, class_="plots four" if len(plots) == 4 else "plots"),
                    class_="front",
                    open=q == 0,
                )
            )
    return parts


def _chance(found: list[Plane]) -> str:
    """What a front of measured values can't tell."""
    cells = [e.cell(plane.quality) for plane in found for e in plane.entries]
    if None in margins(cells):
        return "These values came without an error bar, so which of them is in front may be chance."
    return "The line joins what nothing beats as measured; where the upright bars overlap, the order may be chance."


def _series(entries: list[Entry]) -> tuple[str, list[str]]:
    """The dimension that colours tell apart, and its values; beyond the last colour they share it."""
    for dimension in ("model", "sampler", "precision", "device", "library", "guidance"):
        values = list(dict.fromkeys(e.row.asked.get(dimension, "none") for e in entries))
        if len(values) > 1:
            return dimension, values
    return "model", [""]


def _legend(names: list[str]) -> Markup:
    shown = [*names[: SERIES - 1], "other"] if len(names) > SERIES else names
    return element("ul", [element("li", legend_marker(i), n) for i, n in enumerate(shown)], class_="legend")


def _figure(plane: Plane, dimension: str, names: list[str], identity: str) -> Markup:
    group, quality, cost = plane.group, plane.quality, plane.cost
    points = []
    for entry, (x, y) in zip(plane.entries, plane.places(), strict=True):
        cell = entry.cell(quality)
        low, high = (cell.low, cell.high)
        if low is None and cell.deviation is not None:
            low, high = y - cell.deviation, y + cell.deviation
        label = group.label(entry.row)
        said = f"{label}: {quality.name} {written(y)}, {cost.name} {written(x, cost.unit)}"
        series = names.index(entry.row.asked.get(dimension, "none")) if len(names) > 1 else 0
        points.append(Point(cost=x, quality=y, label=label, title=said, series=series, low=low, high=high))
    plot = pareto_plot(
        points, identity=identity, cost=cost.name, cost_unit=cost.unit, quality=quality.name,
        larger_is_better=quality.better == "higher",
    )  # fmt: skip
    rows = [
        element(
            "tr",
            element("th", group.label(e.row), scope="row"),
            element("td", written(x, cost.unit), class_="number"),
            element("td", written(y), class_="number"),
            element("td", "yes" if i in plane.best else "no"),
        )
        for i, (e, (x, y)) in sorted(enumerate(zip(plane.entries, plane.places(), strict=True)), key=lambda p: p[1][1])
    ]
    heads = [
        element("th", n, scope="col", class_=class_)
        for n, class_ in (
            ("configuration", None),
            (cost.name, "number"),
            (quality.name, "number"),
            ("on the front", None),
        )
    ]
    numbers = element("table", element("thead", element("tr", heads)), element("tbody", rows), class_="plain")
    name = f"{quality.name} over {cost.name}"
    folded = element("details", element("summary", "The numbers"), region(numbers, f"Numbers: {name}"))
    return element("figure", element("figcaption", name), plot, folded)
