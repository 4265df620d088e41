"""Tables on a terminal: at 80 columns and at 200, no cell is cut."""

import io
import re
import sys

import pytest

from zoo.cli.main import run
from zoo.cli.table import print_table


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What was printed to a terminal of some width."""

    def printed(columns, job):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stdout", file := Terminal())
        job()
        monkeypatch.undo()
        return re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())

    return printed


@pytest.mark.parametrize("columns", [80, 200])
def test_check_is_readable(columns, terminal):
    shown = terminal(columns, lambda: run(["check", "cascade-text2img"]))
    assert "…" not in shown
    for cell in ("sr-128", "emoji-base-32", "classifier-free(scale=4.0), static-threshold", "6.27 M", "evaluations",
                 "ddim(steps=30, eta=0.0, grid=trailing)"):  # fmt: skip
        assert cell in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_a_table_that_fits_stays_one(terminal):
    rows = [("a", "b", "c", "what it is"), ("d", "e", "f", "another " * 20)]
    shown = terminal(80, lambda: print_table(("one", "two", "three", "summary"), rows))
    assert shown.splitlines()[0].split() == ["one", "two", "three", "summary"]
    narrow = terminal(20, lambda: print_table(("one", "two", "three", "summary"), rows))
    assert narrow.splitlines()[0].split() == ["one", "a"]
