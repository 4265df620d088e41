"""An estimate is one step of each kind of row, times what the row does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench.test_run import TINY
from zoo.bench import estimate as estimates
from zoo.bench import pipelines
from zoo.bench.estimate import Reading, estimate, written
from zoo.bench.suite import read_suite


def suite(rows, **settings):
    return read_suite({
        "schema": "zoo.suite/1", "name": "tiny", "models": {"tiny": TINY},
        "settings": {"repeats": 2, "warm_up": 1, **settings}, "include": rows,
    })  # fmt: skip


def test_calls_are_their_evaluations_times_the_rounds(monkeypatch):
    built = []

    def read(one):
        built.append(one.row.asked.batch)
        # A step takes 10 a picture; text and decoding 1; and 100 go by before.
        return Reading(first=100.0, around=1.0, stages={"base": 10.0 * one.row.asked.batch}, evaluations={"base": 1})

    monkeypatch.setattr(estimates, "read", read)
    monkeypatch.setattr(estimates, "perf_counter", lambda: 0.0)
    rows = [
        {"model": "tiny", "batch": 1, "steps": 4}, {"model": "tiny", "batch": 2, "steps": 3},
        {"model": "tiny", "batch": 2, "steps": 5}, {"model": "tiny", "batch": 2, "steps": 5, "sampler": "heun"},
        {"model": "tiny", "device": "cuda"},
    ]  # fmt: skip
    asked = suite(rows)
    found = estimate(asked)
    # Building takes what it takes: the clock stands still.
    seconds = [found["rows"][row.id] for row in asked.rows]
    # One warm-up and two rounds; the group's first row runs twice in each.
    assert seconds[0] == 100 + 5 * 41
    assert seconds[1] == 100 + 3 * 61
    assert seconds[2] == 100 + 3 * 101
    assert seconds[3] == 100 + 3 * 161  # heun: two evaluations a step but for the first and the last
    assert seconds[4] is None
    assert found["seconds"] == sum(seconds[:4])
    assert built == [2, 1]  # sampler and steps need no reading of their own


def test_a_reading_is_of_what_runs(monkeypatch):
    found = estimate(suite([{"model": "tiny", "steps": 2}, {"model": "tiny", "steps": 200}]))
    few, many = found["rows"].values()
    assert 0 < few < many
    assert found["reason"] is None


def test_quality_is_counted_once_for_the_same_pictures(monkeypatch):
    class Judge:
        def __init__(self, *_):
            pass

        def seconds(self, built, picture):
            return 1000.0

    monkeypatch.setattr(estimates, "_Judge", Judge)
    monkeypatch.setattr(estimates, "random_weights", lambda config: False)
    monkeypatch.setattr(
        estimates, "read",
        lambda built: Reading(first=0.0, around=0.0, stages={"base": 0.0}, evaluations={"base": 1}),
    )  # fmt: skip
    monkeypatch.setattr(estimates, "perf_counter", lambda: 0.0)
    rows = [{"model": "tiny"}, {"model": "tiny", "batch": 2}, {"model": "tiny", "fast": True},
            {"model": "tiny", "steps": 2}, {"model": "tiny", "precision": "bfloat16", "batch": 2}]  # fmt: skip
    asked = suite(rows)
    found = estimate(asked, data="anything")
    assert [found["rows"][row.id] for row in asked.rows] == [0.0, 1000.0, 0.0, 1000.0, 1000.0]


def test_what_cannot_be_told_has_a_reason(monkeypatch):
    monkeypatch.setattr(pipelines, "missing", lambda device: f"no {device}")
    found = estimate(suite([{"model": "tiny"}]))
    assert (found["seconds"], found["reason"]) == (None, "no row of it can be measured here")
    assert list(found["reasons"].values()) == ["no cpu"]
    compared: Any = SimpleNamespace(kind="diffusers", rows=())
    assert "kind diffusers" in estimate(compared)["reason"]


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (89, "89 s"), (150, "2 min"), (9000, "2.5 h")])
def test_seconds_are_written_for_people(seconds, text):
    assert written(seconds) == text
