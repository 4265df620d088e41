"""Curves of several training runs in one plot, as shapes that the page's template draws."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from markupsafe import Markup

from zoo.bench.report.plots import (
    EAST,
    FLOOR,
    HEIGHT,
    LEFT,
    SERIES,
    TOP,
    Drawing,
    Shape,
    axis,
    marker,
    plain,
)

MOST = 200  # points of a curve; longer ones are averaged over equal numbers of neighbours
Curve = Sequence[tuple[int, float]]


def thinned(curve: Curve, most: int = MOST) -> list[tuple[float, float]]:
    """A curve in at most `most` points: means over neighbours, so that noise doesn't decide which is shown."""
    size = -(-len(curve) // most)
    parts = [curve[i : i + size] for i in range(0, len(curve), max(size, 1))]
    return [(statistics.fmean(s for s, _ in part), statistics.fmean(v for _, v in part)) for part in parts]


def curves_plot(curves: Sequence[tuple[str, Curve]], name: str) -> Drawing:
    """A scalar of several runs over the steps.

    Args:
        curves: (the run's name, its (step, value)), one a run, possibly empty, in the order of the runs' colours.
    """
    drawn = [(i, run, thinned(curve), curve) for i, (run, curve) in enumerate(curves) if curve]
    across = axis([0.0, *(step for _, _, points, _ in drawn for step, _ in points)])
    upwards = axis([value for _, _, points, _ in drawn for _, value in points], marks=7, may_be_logarithmic=True)

    def place(step: float, value: float) -> tuple[float, float]:
        return LEFT + across.share(step) * (EAST - LEFT), FLOOR - upwards.share(value) * (FLOOR - TOP)

    shapes: list[Shape] = []
    for mark in upwards.marks:
        y = place(0.0, mark)[1]
        shapes += [
            Shape("line", {"x1": LEFT, "x2": EAST, "y1": y, "y2": y, "class": "grid"}),
            Shape("text", {"x": LEFT - 6, "y": y + 4, "text-anchor": "end", "class": "tick"}, plain(mark)),
        ]
    for mark in across.marks:
        x = place(mark, upwards.low)[0]
        shapes.append(Shape("text", {"x": x, "y": FLOOR + 16, "text-anchor": "middle", "class": "tick"}, plain(mark)))
    shapes.append(Shape("line", {"x1": LEFT, "x2": EAST, "y1": FLOOR, "y2": FLOOR, "class": "axis"}))
    for series, run, points, curve in drawn:
        places = [place(*point) for point in points]
        # Numbers alone, so it needs no escaping, which would also cut it as long texts are cut.
        path = Markup("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places))
        colour = f"s{min(series, SERIES - 1)}"
        shapes.append(Shape("path", {"d": path, "class": f"curve {colour}"}))
        step, value = curve[-1]
        shapes.append(marker(series, *places[-1], f"{run}: {plain(value)} at step {step}"))
        if len(curve) == 1:  # no curve to follow, so its value stands beside it
            x, y = places[-1]
            side, anchor = (-8, "end") if x > (LEFT + EAST) / 2 else (8, "start")
            shapes.append(
                Shape("text", {"x": x + side, "y": y + 4, "text-anchor": anchor, "class": "tick"}, plain(value))
            )
    # What it shows is said above it.
    if upwards.logarithmic:
        shapes.append(
            Shape("text", {"x": LEFT - 40, "y": 16, "text-anchor": "start", "class": "axis-title"}, "logarithmic")
        )
    shapes += [
        Shape("text", {"x": EAST, "y": HEIGHT - 8, "text-anchor": "end", "class": "axis-title"}, "step"),
    ]
    told = "; ".join(f"{run}: from {plain(c[0][1])} to {plain(c[-1][1])} at step {c[-1][0]}" for _, run, _, c in drawn)
    return Drawing(title=f"{name} over steps", told=told, height=HEIGHT, shapes=shapes)
