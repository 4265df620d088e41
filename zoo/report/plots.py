"""Plots as inline SVG: colours come from the page's theme, and letters keep their size on a phone.

A plot is drawn `WIDTH` units wide, about a phone's width, so that its letters are read there without zooming; on a
laptop several stand side by side. What a plot shows stands beneath it as a table, for whoever can't see it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.report.markup import Markup, element, join, visible
from zoo.report.pareto import front
from zoo.report.ticks import Axis, axis, written

WIDTH, HEIGHT = 360, 290
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 46
LETTER = 6.7  # width of a letter of the labels' size
SERIES = 6  # colours and shapes; further series share the last, as "other"
BAR, BETWEEN = 26, 18
_AROUND = (  # where a label may stand, the nearest first
    (9, 4, "start"), (-9, 4, "end"), (7, -8, "start"), (7, 16, "start"), (-7, -8, "end"), (-7, 16, "end"),
    (0, -11, "middle"), (0, 20, "middle"), (9, -20, "start"), (9, 28, "start"), (-9, -20, "end"), (-9, 28, "end"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Point:
    """A configuration in a plot: cost to the right, quality upwards."""

    cost: float
    quality: float
    label: str  # short, beside the point
    title: str  # in full, when it is pointed at
    series: int
    low: float | None = None  # of quality
    high: float | None = None


def marker(series: int, x: float, y: float, *children: Markup, class_: str = "") -> Markup:
    """A series' shape: told apart without colour."""
    s = min(series, SERIES - 1)
    classes = f"mark s{s} {class_}".strip()
    r = 5.5
    if s == 0:
        return element("circle", *children, cx=x, cy=y, r=r - 0.5, class_=classes)
    shapes = {
        1: [(-r, -r), (r, -r), (r, r), (-r, r)],
        2: [(0, -r - 1), (r + 1, r - 1), (-r - 1, r - 1)],
        3: [(0, -r - 1.5), (r + 1.5, 0), (0, r + 1.5), (-r - 1.5, 0)],
        4: [(0, r + 1), (r + 1, -r + 1), (-r - 1, -r + 1)],
        5: [(-2, -r), (2, -r), (2, -2), (r, -2), (r, 2), (2, 2), (2, r), (-2, r), (-2, 2), (-r, 2), (-r, -2), (-2, -2)],
    }
    scale = 0.85 if s == 1 else 1.0
    corners = " ".join(f"{x + scale * a:.1f},{y + scale * b:.1f}" for a, b in shapes[s])
    return element("polygon", *children, points=corners, class_=classes)


def legend_marker(series: int) -> Markup:
    """A series' shape, for a legend outside the plot."""
    return element("svg", marker(series, 8, 8), viewBox="0 0 16 16", width=16, height=16, aria_hidden="true")


def pareto_plot(
    points: Sequence[Point], *, identity: str, cost: str, cost_unit: str, quality: str, larger_is_better: bool
) -> Markup:
    """Quality over a cost, with the front as a line.

    Args:
        identity: unique on the page.
        cost, quality: what the axes are.
    """
    horizontal = axis([p.cost for p in points], may_be_logarithmic=True)
    ends = [v for p in points for v in (p.quality, p.low, p.high) if v is not None]
    vertical = axis(ends, marks=7)

    def place(p: Point) -> tuple[float, float]:
        return _x(horizontal, p.cost), _y(vertical, p.quality)

    best = front([(p.cost, p.quality) for p in points], larger_is_better=larger_is_better)
    parts = [*_grid(horizontal, vertical, cost_unit), *_front_line([place(points[i]) for i in best], larger_is_better)]
    for p in points:
        if p.low is not None and p.high is not None:
            x = _x(horizontal, p.cost)
            parts.append(element("line", x1=x, x2=x, y1=_y(vertical, p.low), y2=_y(vertical, p.high), class_="whisker"))
    for i in sorted(range(len(points)), key=lambda i: i in best):  # the front on top
        x, y = place(points[i])
        name = element("title", points[i].title)
        parts.append(marker(points[i].series, x, y, name, class_="best" if i in best else "beaten"))
    corners = [place(points[i]) for i in best]
    parts += _labels([(place(points[i]), points[i].label) for i in best], [place(p) for p in points], corners)
    arrow, way = ("↑", "higher") if larger_is_better else ("↓", "lower")
    parts.append(
        element("text", f"{arrow} {visible(quality, 30)}, {way} is better", x=LEFT - 40, y=16, class_="axis-title")
    )
    scale = ", logarithmic" if horizontal.logarithmic else ""
    parts.append(
        element("text", f"← {cost}{scale}", x=WIDTH - RIGHT, y=HEIGHT - 8, class_="axis-title", text_anchor="end")
    )
    told = f"{len(points)} configurations. On the front, by rising {cost}: " + "; ".join(
        f"{points[i].label} ({written(points[i].cost, cost_unit)}, {written(points[i].quality)})" for i in best[:12]
    )
    return element(
        "svg", element("title", f"{quality} over {cost}", id=f"{identity}-t"),
        element("desc", told, id=f"{identity}-d"), parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
        aria_labelledby=f"{identity}-t {identity}-d", class_="plot",
    )  # fmt: skip


def _x(scale: Axis, value: float) -> float:
    return LEFT + scale.share(value) * (WIDTH - LEFT - RIGHT)


def _y(scale: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - TOP - BOTTOM)


def _grid(horizontal: Axis, vertical: Axis, unit: str) -> list[Markup]:
    parts = []
    for mark in vertical.marks:
        y = _y(vertical, mark)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", written(mark), x=LEFT - 6, y=y + 4, text_anchor="end", class_="tick"))
    free = 0.0  # where the last mark's text ends
    for mark in horizontal.marks:
        x, said = _x(horizontal, mark), written(mark, unit)
        parts.append(element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        half = len(said) * LETTER / 2
        if x - half > free:
            anchor = "end" if x + half > WIDTH else "middle"
            parts.append(element("text", said, x=x, y=HEIGHT - BOTTOM + 16, text_anchor=anchor, class_="tick"))
            free = x + half + 4
    floor = HEIGHT - BOTTOM
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=floor, y2=floor, class_="axis"))
    return parts


def _front_line(places: Sequence[tuple[float, float]], larger_is_better: bool) -> list[Markup]:
    """The boundary of what can be had: steps, since between two configurations there is none."""
    if not places:
        return []
    x, y = places[0]
    path = f"M{x:.1f} {HEIGHT - BOTTOM if larger_is_better else TOP}V{y:.1f}"
    for x, y in places[1:]:
        path += f"H{x:.1f}V{y:.1f}"
    path += f"H{WIDTH - RIGHT}"
    edge = HEIGHT - BOTTOM if larger_is_better else TOP
    return [element("path", d=f"{path}V{edge}Z", class_="reach"), element("path", d=path, class_="front")]


def _labels(
    wanted: Sequence[tuple[tuple[float, float], str]],
    points: Sequence[tuple[float, float]],
    corners: Sequence[tuple[float, float]],
) -> list[Markup]:
    """Labels where they cover no point, no line of the front and not each other; what fits nowhere the table tells."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for (x, y), (u, v) in itertools.pairwise([*corners, (WIDTH - RIGHT, corners[-1][1])] if corners else []):
        taken += [(x, y - 1, u, y + 1), (u - 1, min(y, v), u + 1, max(y, v))]
    parts = []
    for (x, y), label in wanted:
        said = visible(label, 24)
        long = len(said) * LETTER
        for dx, dy, anchor in _AROUND:
            start = x + dx - {"start": 0.0, "middle": long / 2, "end": long}[anchor]
            box = (start, y + dy - 10, start + long, y + dy + 3)
            inside = box[0] > LEFT and box[2] < WIDTH and box[1] > TOP - 12 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_meet(box, other) for other in taken):
                parts.append(element("text", said, x=x + dx, y=y + dy, text_anchor=anchor, class_="label"))
                taken.append(box)
                break
    return parts


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def stacked_bars(
    rows: Sequence[tuple[str, Sequence[tuple[int, str, float]]]], *, identity: str, title: str, unit: str
) -> Markup:
    """One bar a row, in parts.

    Args:
        rows: (label, [(series, the part's name, value)]).
    """
    longest = max((sum(v for _, _, v in parts) for _, parts in rows), default=0.0) or 1.0
    drawn: list[Markup] = []
    y = 4.0
    for label, parts in rows:
        total = sum(v for _, _, v in parts)
        drawn.append(element("text", visible(label, 38), x=0, y=y + 12, class_="bar-label"))
        drawn.append(element("text", written(total, unit), x=WIDTH, y=y + 12, text_anchor="end", class_="tick"))
        x = 0.0
        for series, name, value in parts:
            wide = value / longest * WIDTH
            said = element("title", f"{name}: {written(value, unit)}, {100 * value / total if total else 0:.0f} %")
            drawn.append(
                element("rect", said, x=x, y=y + BETWEEN, width=max(wide - 1, 1.0), height=BAR - 10, rx=2,
                        class_=f"bar s{min(series, SERIES - 1)}")
            )  # fmt: skip
            x += wide
        y += BAR + BETWEEN
    told = "; ".join(
        f"{label}: " + ", ".join(f"{name} {written(v, unit)}" for _, name, v in parts) for label, parts in rows[:12]
    )
    return element(
        "svg", element("title", title, id=f"{identity}-t"), element("desc", told, id=f"{identity}-d"), join(drawn),
        viewBox=f"0 0 {WIDTH} {y:.0f}", role="img", aria_labelledby=f"{identity}-t {identity}-d", class_="plot bars",
    )  # fmt: skip
