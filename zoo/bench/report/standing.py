"""Which measured values nothing beats: beyond chance, or as they were measured (a Pareto front).

A value's margin is half of its 95 % interval, where its record has one, or t s / sqrt(k) (Student 1908) for the mean of
k seed ranges. The deviation s of two or three ranges is itself uncertain, so it is pooled over a column's cells,
which have the same metric and N, and t is taken for all of their degrees of freedom. Of both margins the larger counts.

Two values are apart where they differ by more than the root of the sum of their squared margins. One without margin
is apart from none: without an error bar nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo.bench.report.model import Better, Cell

# Student's t, 97.5 %, by degrees of freedom from 1; beyond them the last is a little too wide.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)


def margins(cells: Sequence[Cell]) -> list[float | None]:
    """The margin of each cell of one column; None where its record has no error."""
    spread = [c for c in cells if c.value is not None and c.deviation is not None]
    pooled, t = 0.0, 0.0
    if spread:
        freedom = sum(max(c.ranges - 1, 1) for c in spread)
        pooled = math.sqrt(sum((c.deviation or 0.0) ** 2 * max(c.ranges - 1, 1) for c in spread) / freedom)
        t = _T[min(freedom, len(_T)) - 1]
    found: list[float | None] = []
    for cell in cells:
        known = []
        if cell.low is not None and cell.high is not None:
            known.append(abs(cell.high - cell.low) / 2)
        if cell.deviation is not None:
            known.append(t * pooled / math.sqrt(max(cell.ranges, 1)))
        found.append(max(known) if known and cell.value is not None else None)
    return found


def apart(a: tuple[float, float | None], b: tuple[float, float | None]) -> bool:
    """Whether two (value, margin) differ by more than chance explains."""
    if a[1] is None or b[1] is None:
        return False
    return abs(a[0] - b[0]) > math.hypot(a[1], b[1])


def faster(a: float, b: float, spread: float | None) -> bool:
    """Whether speed `a` is above `b` by more than twice what repeats of one configuration spread, half of a quartile
    range: that of a few repeats' medians is about as large."""
    return spread is not None and a - b > 2 * spread * a


def unbeaten(values: Sequence[tuple[float, float | None]], better: Better) -> list[bool]:
    """For each (value, margin), whether no other is clearly better."""
    sign = 1.0 if better == "higher" else -1.0
    return [not any(sign * (other[0] - one[0]) > 0 and apart(one, other) for other in values) for one in values]


def front(points: Sequence[tuple[float, float]], *, larger_is_better: bool) -> list[int]:
    """The indices of the points that no other dominates, by rising cost.

    Args:
        points: (cost, quality); cost is better where it is smaller.
        larger_is_better: which way quality goes.

    A point dominates another if it is no worse in both and better in one; equal points stand or fall together.
    """
    sign = 1.0 if larger_is_better else -1.0
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1], i))
    found: list[int] = []
    for i in order:
        if not found:
            found.append(i)
            continue
        last = points[found[-1]]
        if sign * points[i][1] > sign * last[1] or points[i] == last:
            found.append(i)
    return found
