"""The notebooks of the docs: their cells run in order, and they are kept without outputs."""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.cli.main import run

COMMAND = "!{sys.executable} -m zoo "
NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[str]:
    """The source of the code cells."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def execute(source: str, space: dict[str, Any]) -> Any:
    """Run a cell as a notebook does, commands of zoo too; the value of a last line that is an expression."""
    lines = []
    for line in source.splitlines():
        if line.startswith("!"):
            assert line.startswith(COMMAND), "a notebook's shell needn't have its environment's commands"
            assert run(shlex.split(line.removeprefix(COMMAND))) == 0
        else:
            lines.append(line)
    *before, last = lines or [""]
    try:
        expression = compile(last, "<cell>", "eval")
        exec(compile("\n".join(before), "<cell>", "exec"), space)
        return eval(expression, space)
    except SyntaxError:
        exec(compile("\n".join(lines), "<cell>", "exec"), space)
        return None


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["first-pictures", "swap-and-compare", "train-your-own"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = zoo.train

    def shortened(recipe: str, *, overrides: dict[str, Any], **named: Any) -> Any:
        """As long as it takes to see that it runs."""
        return whole(recipe, overrides={**overrides, "train.steps": 2, "train.validate_every": 1}, **named)

    monkeypatch.setattr(zoo, "train", shortened)
    space: dict[str, Any] = {}
    shown = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in cells(path):
            value = execute(source, space)
            page = value._repr_html_() if hasattr(value, "_repr_html_") else ""
            assert len(page) < 200_000
            shown += value is not None
    assert shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_kept_without_outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
