"""The answer at the top: what is chosen, and that nothing smaller than the noise is claimed."""

from __future__ import annotations

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.invented import LAPTOP, record, row
from tests.report.dom import read
from zoo.bench.report import page, read_records
from zoo.bench.report.choice import choices
from zoo.bench.report.groups import groups
from zoo.bench.report.model import Cell
from zoo.bench.report.standing import apart, faster, margins, unbeaten

HIT, FD = "hit[emoji-evaluator@cfa563d6,test]@64", "fd[emoji-evaluator@cfa563d6]@64"


def rows(*told: tuple[str, int, float, float], half: float = 0.02) -> list[dict]:
    """Rows of (sampler, steps, images a second, hit), judged by hit alone."""
    made = []
    for i, (sampler, steps, a_second, hit) in enumerate(told):
        one = copy.deepcopy(row(sampler, steps, seed=i))
        one["speed"]["images_per_second"] = a_second
        values = one["quality"]["values"]
        del values[FD]
        values[HIT] |= {"value": hit, "interval": [hit - half, hit + half], "deviation": None}
        made.append(one)
    return made


@pytest.fixture
def told(tmp_path):
    """Reads rows as a record; returns its choices and its page's answers."""

    def read_rows(found):
        made = record("s", "2026-11-20T09:00:00+00:00", LAPTOP, found)
        (tmp_path / "r.json").write_text(json.dumps(made))
        records = read_records([tmp_path])
        found = [c for g in groups(records) for c in choices(g)]
        return found, [a.text for a in read(page(records)).all("section", class_="answer")]

    return read_rows


def test_the_fastest_of_those_that_nothing_clearly_beats_is_chosen(told):
    chosen, answers = told(rows(("ddim", 5, 9.0, 0.10), ("ddim", 10, 5.0, 0.20), ("ddim", 20, 2.0, 0.21)))
    assert chosen[0].pick.row.asked["steps"] == "10"
    assert "Use latent-text2img with ddim, 10 steps" in answers[0]
    assert "2 of 3 configurations are as good as any in hit" in answers[0]
    assert "too little to tell them apart, and it takes 2.5 times as long" in answers[0]
    assert "draws 1.8 times as many images a second, at a clear loss: hit 0.1 instead of 0.2" in answers[0]


def test_differences_smaller_than_the_noise_are_not_claimed(told):
    found = rows(("ddim", 5, 9.0, 0.10), ("ddim", 10, 8.9, 0.20), ("ddim", 20, 2.0, 0.30), half=0.2)
    chosen, answers = told(found)
    assert len(chosen[0].good) == 3
    assert "No difference of hit between the 3 configurations is larger than the noise" in answers[0]
    assert "As fast within the noise, and as good: 10." in answers[0]
    assert "better" not in answers[0].replace("higher is better", "")
    assert "worse" not in answers[0]


def test_a_measure_without_an_error_bar_decides_nothing(told):
    found = rows(("ddim", 5, 9.0, 0.10), ("ddim", 10, 5.0, 0.90))
    for one in found:
        one["quality"]["values"][HIT]["interval"] = None
    chosen, answers = told(found)
    assert chosen[0].deciding == ()
    assert "Use " not in answers[0]
    assert "hit came without an error bar, so no difference counts" in answers[0]


def test_measures_that_contradict_each_other_are_said_to(told):
    found = rows(("ddim", 5, 9.0, 0.10), ("ddim", 10, 5.0, 0.90))
    other = "kid[emoji-evaluator@cfa563d6]@64"
    for one, value in zip(found, (0.1, 0.9), strict=True):
        interval = [value - 0.01, value + 0.01]
        one["quality"]["values"][other] = one["quality"]["values"][HIT] | {
            "value": value, "interval": interval, "better": "lower"
        }  # fmt: skip
    chosen, answers = told(found)
    assert chosen[0].contradicted
    assert chosen[0].pick.row.asked["steps"] == "10"
    assert "The measures contradict each other" in answers[0]


def test_rows_judged_by_unlike_keys_are_answered_apart(told):
    found = rows(("ddim", 5, 9.0, 0.10), ("ddim", 10, 5.0, 0.20), ("heun", 5, 9.0, 0.90), ("heun", 10, 5.0, 0.95))
    for one in found[2:]:
        values = one["quality"]["values"]
        values["hit[other@12345678]@64"] = values.pop(HIT)
    chosen, answers = told(found)
    assert [{e.row.asked["sampler"] for e in c.entries} for c in chosen] == [{"ddim"}, {"heun"}]
    assert len(answers) == 2


def test_changing_one_setting_compares_rows_that_differ_in_nothing_else(told):
    found = rows(("ddim", 5, 9.0, 0.10), ("ddim", 10, 5.0, 0.20), ("heun", 10, 2.5, 0.21), ("unipc", 30, 1.0, 0.2))
    changes = told(found)[0][0].changes()
    told_of = [(c.dimension, c.before.row.asked["steps"], c.after.row.asked["sampler"]) for c in changes]
    assert told_of == [("sampler", "10", "heun"), ("steps", "10", "ddim")], "unipc at 30 steps has no partner"


def test_a_margin_is_half_of_the_interval_or_students_of_the_pooled_deviation():
    assert margins([Cell(value=1.0, low=0.8, high=1.4)]) == [pytest.approx(0.3)]
    cells = [Cell(value=1.0, deviation=0.3, ranges=2), Cell(value=2.0, deviation=0.4, ranges=2)]
    wanted = stats.t.ppf(0.975, 2) * math.sqrt((0.3**2 + 0.4**2) / 2) / math.sqrt(2)
    assert margins(cells) == [pytest.approx(wanted, rel=1e-3)] * 2
    assert margins([Cell(value=1.0), Cell(value=None, low=0.0, high=1.0)]) == [None, None]


@given(st.lists(st.tuples(st.floats(-10, 10), st.none() | st.floats(0, 5)), min_size=1), st.booleans())
def test_the_best_value_is_never_beaten_and_what_has_no_margin_neither(values, higher):
    fine = unbeaten(values, "higher" if higher else "lower")
    best = (max if higher else min)(values, key=lambda v: v[0])
    assert fine[values.index(best)]
    assert all(good for (_, margin), good in zip(values, fine, strict=True) if margin is None)


@given(st.floats(0.1, 100), st.floats(0.1, 100), st.none() | st.floats(0, 0.4))
def test_of_two_speeds_at_most_one_is_faster(a, b, spread):
    assert not (faster(a, b, spread) and faster(b, a, spread))
    assert not faster(a, a, spread)
    assert not apart((a, None), (b, 0.0))
