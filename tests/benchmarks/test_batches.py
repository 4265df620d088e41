"""How far another batch moves a picture: equal pictures don't differ, and the table says the worst of the record."""

from __future__ import annotations

import json

import torch

from benchmarks import tables
from benchmarks.batches import difference


def test_differences_are_of_values_and_of_what_a_file_holds():
    one = torch.full((2, 3, 4, 4), 0.5)
    assert difference(one, one)["largest"] == 0.0
    other = one.clone()
    other[0, 0, 0, 0] += 1e-6  # 127.5 is rounded to even, 127.50026 up: both are 128
    other[1, 2, 3, 3] += 2.0 / 255
    found = difference(other, one)
    assert (found["values_that_differ"], found["largest_of_255"], found["values"]) == (1, 2, 96)
    assert abs(found["largest"] - 2.0 / 255) < 1e-6


def test_the_table_says_the_worst(tmp_path):
    row = {"sampler": "ddim", "batch": 1, "largest": 1e-6, "values_that_differ": 1, "largest_of_255": 1, "values": 1000}
    worse = {**row, "sampler": "euler-ancestral", "largest": 5e-6, "values_that_differ": 4}
    made = {
        "settings": {"model": "m", "steps": 10, "pictures": 8, "dtype": "float32"}, "values": {"rows": [row, worse]},
        "machine": {"processor": "P", "cores": 2, "threads": 2}, "versions": {"torch": "2"},
    }  # fmt: skip
    assert tables.batches(tmp_path) == tables.MISSING
    (tmp_path / "batches.json").write_text(json.dumps(made))
    said = tables.batches(tmp_path)
    assert "5.0e-06" in said
    assert "4 of 1,000 values differ, by 1 of 255 at most" in said
