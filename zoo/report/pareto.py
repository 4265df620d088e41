"""Pareto fronts: what nothing else beats in both of two measures."""

from __future__ import annotations

from collections.abc import Sequence


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
