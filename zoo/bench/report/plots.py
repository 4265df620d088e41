"""Formatted numbers, axes, and plots as shapes that the page's template draws.

A plot is drawn `WIDTH` units wide, about a phone's width, so that its labels can be read there without zooming; on a
laptop several stand side by side. Colours come from the page's theme.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

WIDTH, HEIGHT = 360, 290
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 34, 46
EAST, FLOOR = WIDTH - RIGHT, HEIGHT - BOTTOM
LETTER = 6.7  # width of a letter of the labels' size
SERIES = 6  # colours and shapes; further series share the last, as "other"
BAR, BETWEEN = 26, 18
BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_AROUND = (  # where a label may stand, the nearest first
    (9, 4, "start"), (-9, 4, "end"), (7, -8, "start"), (7, 16, "start"), (-7, -8, "end"), (-7, 16, "end"),
    (0, -11, "middle"), (0, 20, "middle"), (9, -20, "start"), (9, 28, "start"), (-9, -20, "end"), (-9, 28, "end"),
)  # fmt: skip
_CORNERS = {  # of the series' shapes, which differ without colour
    1: [(-4.7, -4.7), (4.7, -4.7), (4.7, 4.7), (-4.7, 4.7)],
    2: [(0, -6.5), (6.5, 4.5), (-6.5, 4.5)],
    3: [(0, -7), (7, 0), (0, 7), (-7, 0)],
    4: [(0, 6.5), (6.5, -4.5), (-6.5, -4.5)],
    5: [(-2, -5.5), (2, -5.5), (2, -2), (5.5, -2), (5.5, 2), (2, 2), (2, 5.5), (-2, 5.5), (-2, 2), (-5.5, 2),
        (-5.5, -2), (-2, -2)],
}  # fmt: skip


def written(value: float, unit: str = "", digits: int = 4) -> str:
    """A value with its unit: bytes and seconds in the size that reads best, everything else to some digits."""
    if unit == "bytes":
        size, name = next(((size, name) for size, name in BYTES if abs(value) >= size), (1.0, "B"))
        return f"{plain(value / size, digits)} {name}"
    if unit == "s" and 0 < abs(value) < 1:
        size, name = (1e6, "µs") if abs(value) < 1e-3 else (1e3, "ms")
        return f"{plain(value * size, digits)} {name}"
    return f"{plain(value, digits)} {unit}".rstrip()


def plain(value: float, digits: int = 4) -> str:
    """A number to some significant digits, without an exponent where it reads better so."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if 1e-4 <= abs(value) < 1e7:
        text = f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits - 1}g}"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A scale from values to places, with its marks."""

    low: float
    high: float
    logarithmic: bool
    marks: tuple[float, ...]

    def share(self, value: float) -> float:
        """How far along the axis a value stands, from 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis(values: list[float], *, marks: int = 5, may_be_logarithmic: bool = False) -> Axis:
    """An axis that holds the values with a little room; logarithmic where they span a factor of twelve or more."""
    low, high = min(values), max(values)
    if may_be_logarithmic and 0 < 1e-12 * high < low <= high / 12:
        room = (high / low) ** 0.07
        low, high = low / room, high * room
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found: tuple[float, ...] = ()
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = tuple(s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high)
            if len(found) <= marks + 1:
                break
        thinned = found[:: math.ceil(len(found) / (marks + 1))]
        return Axis(low=low, high=high, logarithmic=True, marks=thinned)
    size = max(abs(low), abs(high))
    if size < 1e-100:
        size, low, high = 0.0, 0.0, 0.0  # zero, to a tenth of a pixel
    room = 0.08 * (high - low) if high - low > 1e-9 * size else 0.1 * size or 1.0
    nonnegative = low >= 0
    low, high = low - room, high + room
    if nonnegative and low < 0.35 * high:
        low = 0.0  # from zero, where that costs little room
    rough = (high - low) / marks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * s for s in (1, 2, 5, 10) if power * s >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low=low, high=high, logarithmic=False, marks=tuple(i * step for i in range(first, last + 1)))


class Shape(NamedTuple):
    """An SVG element; `text` is its text, or its tooltip."""

    tag: str
    attributes: Mapping[str, Any]
    text: str = ""


class Drawing(NamedTuple):
    """A plot with its description for screen readers."""

    title: str
    told: str
    height: float
    shapes: Sequence[Shape]
    name: str = "plot"


class Point(NamedTuple):
    """A configuration in a plot: cost to the right, quality upwards."""

    cost: float
    quality: float
    label: str  # short, beside the point
    title: str  # in full, when it is pointed at
    series: int
    low: float | None = None  # of quality
    high: float | None = None


def marker(series: int, x: float, y: float, title: str = "", kind: str = "") -> Shape:
    """A series' shape."""
    s = min(series, SERIES - 1)
    classes = f"mark s{s} {kind}".strip()
    if s == 0:
        return Shape("circle", {"cx": x, "cy": y, "r": 5, "class": classes}, title)
    corners = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in _CORNERS[s])
    return Shape("polygon", {"points": corners, "class": classes}, title)


def _short(said: str, longest: int) -> str:
    return said if len(said) <= longest else f"{said[:longest]}…"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Shape:
    return Shape("line", {"x1": x1, "x2": x2, "y1": y1, "y2": y2, "class": kind})


def _text(said: str, x: float, y: float, kind: str, anchor: str = "start") -> Shape:
    return Shape("text", {"x": x, "y": y, "text-anchor": anchor, "class": kind}, said)


def pareto_plot(
    points: Sequence[Point], best: Sequence[int], *, cost: str, cost_unit: str, quality: str, larger_is_better: bool
) -> Drawing:
    """Quality over a cost, with the front as a line.

    Args:
        best: which points are on the front, by rising cost.
        cost, quality: what the axes are.
    """
    across = axis([p.cost for p in points], may_be_logarithmic=True)
    upwards = axis([v for p in points for v in (p.quality, p.low, p.high) if v is not None], marks=7)

    def x(value: float) -> float:
        return LEFT + across.share(value) * (EAST - LEFT)

    def y(value: float) -> float:
        return FLOOR - upwards.share(value) * (FLOOR - TOP)

    places = [(x(p.cost), y(p.quality)) for p in points]
    corners = [places[i] for i in best]
    grid = [s for m in upwards.marks for s in (
        _line(LEFT, y(m), EAST, y(m), "grid"), _text(written(m), LEFT - 6, y(m) + 4, "tick", "end"),
    )]  # fmt: skip
    whiskers = [
        _line(x(p.cost), y(p.low), x(p.cost), y(p.high), "whisker")
        for p in points if p.low is not None and p.high is not None
    ]  # fmt: skip
    marks = [
        marker(points[i].series, *places[i], points[i].title, "best" if i in best else "beaten")
        for i in sorted(range(len(points)), key=lambda i: i in best)  # the front on top
    ]
    arrow, way = ("↑", "higher") if larger_is_better else ("↓", "lower")
    named = "; ".join(
        f"{points[i].label} ({written(points[i].cost, cost_unit)}, {written(points[i].quality)})" for i in best[:12]
    )
    return Drawing(
        title=f"{quality} over {cost}", height=HEIGHT,
        told=f"{len(points)} configurations. On the front, by rising {cost}: {named}",
        shapes=[
            *grid, *_across(across.marks, x, cost_unit), _line(LEFT, FLOOR, EAST, FLOOR, "axis"),
            *_front_line(corners, FLOOR if larger_is_better else TOP), *whiskers, *marks,
            *_labels([(places[i], points[i].label) for i in best], places, corners),
            _text(f"{arrow} {_short(quality, 30)}, {way} is better", LEFT - 40, 16, "axis-title"),
            _text(f"← {cost}{', logarithmic' if across.logarithmic else ''}", EAST, HEIGHT - 8, "axis-title", "end"),
        ],
    )  # fmt: skip


def _across(marks: Iterable[float], x: Any, unit: str) -> Iterator[Shape]:
    """The horizontal axis' marks; a number that has no room beside the last is left out."""
    free = 0.0  # where the last mark's text ends
    for mark in marks:
        said = written(mark, unit)
        half = len(said) * LETTER / 2
        yield _line(x(mark), TOP, x(mark), FLOOR, "grid")
        if x(mark) - half > free:
            yield _text(said, x(mark), FLOOR + 16, "tick", "end" if x(mark) + half > WIDTH else "middle")
            free = x(mark) + half + 4


def _front_line(places: Sequence[tuple[float, float]], edge: float) -> list[Shape]:
    """The Pareto front as steps, since between two configurations there is none."""
    if not places:
        return []
    steps = "H".join(f"{x:.1f}V{y:.1f}" for x, y in places)
    path = f"M{steps.replace('V', f' {edge}V', 1)}H{EAST}"
    return [Shape("path", {"d": f"{path}V{edge}Z", "class": "reach"}), Shape("path", {"d": path, "class": "front"})]


def _labels(
    wanted: Sequence[tuple[tuple[float, float], str]],
    points: Sequence[tuple[float, float]],
    corners: Sequence[tuple[float, float]],
) -> Iterator[Shape]:
    """Labels where they cover no point, no line of the front and not each other; others are left to the table."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for (x, y), (u, v) in itertools.pairwise([*corners, (EAST, corners[-1][1])] if corners else []):
        taken += [(x, y - 1, u, y + 1), (u - 1, min(y, v), u + 1, max(y, v))]
    for (x, y), label in wanted:
        said = _short(label, 24)
        long = len(said) * LETTER
        for dx, dy, anchor in _AROUND:
            start = x + dx - {"start": 0.0, "middle": long / 2, "end": long}[anchor]
            box = (start, y + dy - 10, start + long, y + dy + 3)
            inside = box[0] > LEFT and box[2] < WIDTH and box[1] > TOP - 12 and box[3] < FLOOR
            if inside and not any(_meet(box, other) for other in taken):
                yield _text(said, x + dx, y + dy, "label", anchor)
                taken.append(box)
                break


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def stacked_bars(rows: Sequence[tuple[str, Sequence[tuple[int, str, float]]]], *, title: str, unit: str) -> Drawing:
    """One bar a row, in parts.

    Args:
        rows: (label, [(series, the part's name, value)]).
    """
    longest = max((sum(v for _, _, v in parts) for _, parts in rows), default=0.0) or 1.0
    shapes: list[Shape] = []
    y = 4.0
    for label, parts in rows:
        total = sum(v for _, _, v in parts)
        shapes += [
            _text(_short(label, 38), 0, y + 12, "bar-label"),
            _text(written(total, unit), WIDTH, y + 12, "tick", "end"),
        ]
        x = 0.0
        for series, name, value in parts:
            wide = value / longest * WIDTH
            box = {"x": x, "y": y + BETWEEN, "width": max(wide - 1, 1.0), "height": BAR - 10, "rx": 2}
            said = f"{name}: {written(value, unit)}, {100 * value / total if total else 0:.0f} %"
            shapes.append(Shape("rect", {**box, "class": f"bar s{min(series, SERIES - 1)}"}, said))
            x += wide
        y += BAR + BETWEEN
    told = "; ".join(
        f"{label}: " + ", ".join(f"{name} {written(v, unit)}" for _, name, v in parts) for label, parts in rows[:12]
    )
    return Drawing(title=title, told=told, height=y, shapes=shapes, name="plot bars")
