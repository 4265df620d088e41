"""Fronts against their definition, axes that hold their values, numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.bench.report.plots import axis, plain, written
from zoo.bench.report.standing import front

FEW = st.integers(-3, 3).map(float)  # few values, so that there are ties
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8)


@given(st.lists(st.tuples(FEW, FEW), max_size=12), st.booleans())
def test_the_front_is_what_nothing_dominates(points, larger):
    def better(a: float, b: float) -> bool:
        return a > b if larger else a < b

    def dominated(p: tuple[float, float]) -> bool:
        return any(q[0] <= p[0] and not better(p[1], q[1]) and (q[0] < p[0] or better(q[1], p[1])) for q in points)

    found = front(points, larger_is_better=larger)
    assert sorted(found) == [i for i, p in enumerate(points) if not dominated(p)]
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


@given(VALUES, st.booleans())
def test_an_axis_holds_its_values_and_its_marks(values, logarithmic):
    found = axis(values, may_be_logarithmic=logarithmic)
    assert all(-1e-9 <= found.share(v) <= 1 + 1e-9 for v in (*values, *found.marks))
    assert 1 <= len(found.marks) <= 12
    assert found.share(max(values)) >= found.share(min(values))


def test_an_axis_over_decades_is_logarithmic_and_marked_in_decades():
    found = axis([0.01, 1.0, 100.0], may_be_logarithmic=True)
    assert found.logarithmic
    assert {0.01, 1.0, 100.0} <= {round(m, 9) for m in found.marks}
    assert found.share(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.0, "s", "0 s"), (0.00042, "s", "420 µs"), (0.0517, "s", "51.7 ms"), (3.135, "s", "3.135 s"),
        (512e6, "bytes", "512 MB"), (12, "bytes", "12 B"), (85.9e9, "bytes", "85.9 GB"), (0.81, "J", "0.81 J"),
        (1385.0, "", "1,385"), (30.0, "", "30"), (1e-9, "", "1e-09"), (0.000451, "", "0.000451"),
    ],
)  # fmt: skip
def test_values_are_written_with_their_unit(value, unit, said):
    assert written(value, unit) == said


@given(st.floats(1e-4, 1e6))
def test_four_digits_are_kept(value):
    assert float(plain(value).replace(",", "")) == pytest.approx(value, rel=5.1e-4)
