"""The two walks of docs/architecture.md: every stop is there, and every import of theirs points down the rooms."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_import_graph import layer

ROOT = Path(__file__).resolve().parents[1]
MOST = 12  # stops of a walk


def walks() -> list[list[tuple[str, str]]]:
    """The stops of each walk: file and function."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Two walks")[2].partition("\n## ")[0]
    found: list[list[tuple[str, str]]] = []
    for number, file, name in re.findall(r"^(\d+)\. `(zoo/[\w/]+\.py):([\w.]+)`", section, re.MULTILINE):
        if number == "1":
            found.append([])
        found[-1].append((file, name))
    return found


def module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def test_there_are_two_and_they_are_short():
    assert [bool(walk) and len(walk) <= MOST for walk in walks()] == [True, True]


@pytest.mark.parametrize(("file", "name"), [stop for walk in walks() for stop in walk])
def test_a_stop_is_a_function_of_its_file(file, name):
    scope: ast.AST = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for part in name.split("."):
        inside = [n for n in ast.iter_child_nodes(scope) if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        scope = {n.name: n for n in inside}[part]


@pytest.mark.parametrize("walk", walks(), ids=lambda walk: walk[0][0])
def test_whoever_walks_begins_in_the_last_room(walk):
    first, *rest = [layer(module(file)) for file, _ in walk]
    assert all(first > other for other in rest)
