"""Reserved names are found wherever they stand, and lists that aren't lists are refused."""

from __future__ import annotations

import hashlib

import pytest

from tests.refusals import refused
from zoo.data.reserved import ReservedNames, normalised


def listed(path, *names):
    path.write_text("# a remark\n\n" + "\n".join(hashlib.sha256(n.encode()).hexdigest() for n in names) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("green circle", True), ("a Green-Circle, 3d style", True), ("big green  circle_button", True),
        ("circle green", False), ("green", False), ("greencircle", False), ("", False), ("fox", True),
        ("foxes", False), ("one two three four five six", True), ("0 one two three four five six 7", True),
    ],
)  # fmt: skip
def test_any_run_of_words_counts(tmp_path, text, held):
    names = ReservedNames([
        listed(tmp_path / "a", "green circle", "one two three four five six"), listed(tmp_path / "b", "fox")
    ])  # fmt: skip
    assert names.holds(text) is held
    assert names.holds(text) is held


def test_normalising_is_that_of_the_lists():
    assert normalised("  Cat face: 3D-style! ") == "cat face 3d style"
    assert normalised("Élan") == "lan"


def test_lists_that_cannot_be_meant_are_refused(tmp_path):
    with refused("reserved-list-unreadable", naming="nowhere"):
        ReservedNames([str(tmp_path / "nowhere")])
    (tmp_path / "odd").write_text("# fine\nred apple\n")
    with refused("reserved-list-unreadable"):
        ReservedNames([str(tmp_path / "odd")])


def test_no_list_reserves_nothing():
    assert not ReservedNames([]).holds("green circle")
