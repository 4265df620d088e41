"""What metrics cost: both sides compute the same distance, take turns, and the table says what the record has."""

from __future__ import annotations

import json

import pytest

from benchmarks import metrics, tables


def test_both_sides_compute_the_same_distance_at_full_rank_and_below():
    full, few = metrics.frechet(1, 64)
    assert (full["samples"], few["samples"]) == (128, 31)
    assert (full["from"], few["from"]) == ("moments", "features")
    assert full["relative_difference"] < 1e-9
    assert few["relative_difference"] < 1e-3  # the root of a singular matrix is itself no better
    assert full["value"] > 0.1


def test_who_begins_changes_and_a_ratio_is_of_pairs():
    order = []
    calls = {"ours": lambda: order.append("ours"), "theirs": lambda: order.append("theirs")}
    assert {name: len(runs) for name, runs in metrics.in_turn(calls, 2).items()} == {"ours": 2, "theirs": 2}
    assert order == ["theirs", "ours", "ours", "theirs"]
    assert metrics.faster([1.0, 2.0, 1.0], [4.0, 6.0, 5.0]) == 4.0


def test_the_table_shows_the_record_and_says_when_there_is_none(tmp_path):
    assert tables.metrics(tmp_path) == tables.MISSING
    row = {
        "case": "full rank", "samples": 4096, "dimensions": 2048, "from": "moments", "zoo_seconds": {"median": 1.5},
        "sqrtm_seconds": {"median": 12.0}, "times_faster": 8.0,
    }  # fmt: skip
    speeds = [("float32", 16.0, 1.6), ("bfloat16", 30.0, 3.0), ("pytorch-fid", 10.0, 1.0)]
    inception = {
        "rows": [{"what": n, "images_per_second": s, "times_faster": f} for n, s, f in speeds],
        "random_weights": True, "relative_difference_float32": 5e-7,
        "shift": {"samples": 64, "relative": -0.00035},
    }  # fmt: skip
    record = {
        "settings": {"size": 256, "count": 50}, "values": {"frechet": [row], "inception": inception},
        "machine": {"processor": "one", "cores": 2, "threads": 2}, "versions": {"torch": "2"},
    }  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    shown = tables.metrics(tmp_path)
    assert "4096 x 2048, from moments | 1.50 s | 12.0 s, `sqrtm(S1 @ S2)` | 8.0x |" in shown
    assert "bfloat16 | 30.0 a second | 10.0 a second, pytorch-fid in float32 | 3.00x |" in shown
    assert "by -0.035 %" in shown
    assert "random weights" in shown
    assert "pytorch-fid |" not in shown


def test_the_network_that_is_compared_with_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(metrics.sys.modules, "pytorch_fid", None)
    with pytest.raises(SystemExit, match="install pytorch-fid"):
        metrics.pytorch_fid(None)
