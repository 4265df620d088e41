"""The phase `speed`: two suites of one structure, and lines beside what a record measured."""

from __future__ import annotations

import pytest

from benchmarks.on_gpu import speed
from benchmarks.peers import ROW_KINDS
from zoo.bench.suite import read_suite


@pytest.mark.slow
def test_the_suite_of_a_gpu_and_the_tiny_one_ask_for_the_same():
    large, tiny = (
        read_suite(speed.suite(device=device, tiny=device == "cpu"), kinds=ROW_KINDS) for device in ("cuda", "cpu")
    )
    kinds = list(dict.fromkeys((row.kind, row.asked.model in speed.MODELS) for row in large.rows))
    assert list(dict.fromkeys((row.kind, row.asked.model in speed.MODELS) for row in tiny.rows)) == kinds
    assert [row.asked.model for row in large.rows[:5]] == [row.asked.model for row in tiny.rows[:5]]
    assert {row.asked.precision for row in large.rows} == {"bfloat16"}
    assert {row.asked.device for row in large.rows} == {"cuda"}
    assert all(row.seconds for row in (*large.rows, *tiny.rows))
    # The first rows are the ones that are worth most, and compile nothing.
    assert [row.asked.model for row in large.rows[:2]] == list(speed.MODELS[:2])
    assert not any(row.asked.fast["compile"] for row in large.rows[:2])
    batches = {(row.asked.model, row.asked.batch) for row in large.rows}
    for line in speed.LINES:
        assert all((line.model, batch) in batches for batch in line.batches), line


def row(identity, library, *, model="sd15-random", part="loop", batch=1, reason=None):
    asked = {"model": model, "part": part, "batch": batch, "library": library}
    return {"id": identity, "name": identity, "asked": asked, "reason": reason}


def pair(ours, theirs, ratio, reason=None):
    return {"ours": ours, "theirs": theirs, "ratio": ratio, "reason": reason}


def test_lines_stand_beside_the_best_that_was_measured():
    record = {
        "rows": [
            row("a", "zoo"), row("b", "zoo eager"), row("t", "diffusers"), row("c", "diffusers compiled"),
            row("d", "zoo", batch=16), row("e", "diffusers", batch=16),
            row("x", "zoo", model="sdxl-random", reason="its time was over before it began"),
        ],
        "pairs": [
            pair("a", "t", 2.2), pair("b", "t", 0.97), pair("a", "c", 1.2), pair("d", "e", 1.4),
        ],
    }  # fmt: skip
    found = {(e["what"], e["batch"], e["over"]): e for e in speed.beside(record)}
    assert found["SD 1.5 size, 512 px", 1, "eager"] == {
        "what": "SD 1.5 size, 512 px", "batch": 1, "over": "eager", "line": 2.5, "measured": 2.2, "by": "a",
        "reason": None,
    }  # fmt: skip
    assert found["SD 1.5 size, 512 px", 1, "compiled"]["measured"] == 1.2
    assert found["SD 1.5 size, 512 px", 16, "eager"]["measured"] == 1.4
    assert (found["nowhere under", None, "lowest"]["measured"], found["nowhere under", None, "lowest"]["by"]) == (
        0.97, "b",
    )  # fmt: skip
    assert found["SDXL size, 1024 px", 1, "eager"]["measured"] is None
    assert found["SDXL size, 1024 px", 1, "eager"]["reason"] == "its time was over before it began"
    assert found["DDPM size, DDIM loop", 1, "eager"]["reason"] == "no call got that far"


def test_a_pair_is_marked_with_the_line_that_is_about_it():
    rows = [row("a", "zoo"), row("t", "diffusers"), row("c", "diffusers compiled"), row("d", "zoo", batch=4)]
    pairs = [pair("a", "t", 2.0), pair("a", "c", 1.0), pair("d", "t", 1.0), pair("a", None, None), pair("x", "t", 1.0)]
    marked = speed.mark({"rows": rows, "pairs": pairs})
    assert [p.get("line") for p in marked["pairs"]] == [2.5, 1.15, 0.98, None, None]


def test_a_pair_that_could_not_be_made_says_why_beside_its_line():
    record = {"rows": [row("a", "zoo")], "pairs": [pair("a", None, None, "needs diffusers (none)")]}
    found = {(e["what"], e["batch"], e["over"]): e for e in speed.beside(record)}
    assert found["SD 1.5 size, 512 px", 1, "eager"]["reason"] == "needs diffusers (none)"
