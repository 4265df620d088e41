"""Marks are held against what was measured, a function with all its cases."""

from __future__ import annotations

import subprocess
import sys

from tests.costs import Cost, read, spent, table, write, wrong

COSTS = [
    Cost("tests/a/test_x.py::test_dear[1]", 0.3, False, True),
    Cost("tests/a/test_x.py::test_dear[2]", 0.3, False, True),
    Cost("tests/a/test_x.py::test_cheap", 0.1, True, True),
    Cost("tests/test_y.py::test_between", 0.3, True, True),
    Cost("tests/test_y.py::test_skipped", 9.0, False, False),
    Cost("tests/test_z.py::test_of_a_peer", 0.0, True, True, peer=True),
]


def test_marks_that_are_missing_and_needless_are_found():
    unmarked, needless = wrong(COSTS, 0.5)
    assert unmarked == {"tests/a/test_x.py::test_dear": 0.6}
    assert needless == {"tests/a/test_x.py::test_cheap": 0.1}


def test_a_table_has_a_line_a_folder_and_counts_what_ran(tmp_path):
    write(COSTS, tmp_path / "costs.json")
    _, first, second, last = table(read(tmp_path / "costs.json"))
    assert first.split() == ["tests/a", "3", "1", "0.7", "0.6", "test_dear"]
    assert second.split() == ["tests", "2", "2", "0.3", "0.3", "test_between"]
    assert last.split() == ["all", "5", "3", "1.0"]


def test_what_processes_of_a_test_spend_is_counted():
    before = spent()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert spent() - before > 0.01
