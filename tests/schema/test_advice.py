"""Advice names options as whoever asked writes them, and every option that is advised is there."""

import ast
import re
from pathlib import Path

import pytest

from zoo.cli.main import run
from zoo.schema.advice import on_command_line, option, spoken

ZOO = Path(__file__).parents[2] / "zoo"
# What only Python can say (a second model, a part's family), and an attribute of SVG.
PYTHON_ONLY = {"refiner", "family", "unit"}


def test_an_option_is_written_as_the_caller_writes_it():
    assert option("long_prompts", "chunks") == "long_prompts='chunks'"
    assert option("n", 100) == "n=100"
    assert option("weights", Path("a b.pt")) == "weights='a b.pt'"
    with on_command_line():
        assert option("long_prompts", "chunks") == "--long-prompts chunks"
        assert option("weights", Path("a b.pt")) == "--weights 'a b.pt'"
        assert (option("features"), spoken("python", "shell")) == ("--features", "shell")
    assert (option("features"), spoken("python", "shell")) == ("`features`", "python")


def test_no_sentence_advises_an_option_in_one_language_only():
    found = []
    for path in ZOO.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said = re.findall(r"(?<![\w.=])([a-z_]{4,})='[A-Za-z]*'?", node.value)
                found += [f"{path.name}:{node.lineno} {name}" for name in said if name not in PYTHON_ONLY]
    assert [entry for entry in found if "advice.py" not in entry] == []


def test_every_option_that_is_advised_is_an_option_of_some_verb(capsys):
    advised = set()
    for path in ZOO.rglob("*.py"):
        advised |= set(re.findall(r"\boption\('([a-z_]+)'", path.read_text(encoding="utf-8")))
    assert {"background", "copy", "long_prompts"} <= advised
    helps = ""
    for verb in ("generate", "check", "evaluate", "reproduce"):
        run([verb, "--help"])
        helps += capsys.readouterr().out
    for name in advised:
        assert f"--{name.replace('_', '-')}" in helps or f"-{name} " in helps, name


@pytest.mark.parametrize("language", ["python", "shell"])
def test_a_transparent_image_is_advised_about_in_the_callers_words(tmp_path, monkeypatch, capsys, language):
    from PIL import Image

    from zoo.evaluation.comparison import evaluate

    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            Image.new("RGBA", (8, 8)).save(tmp_path / folder / f"{i}.png")
    if language == "shell":
        assert run(["evaluate", "a", "b", "--extractor", "{name: random, width: 4, size: 16, layers: 2}"]) == 2
        assert "--background white" in capsys.readouterr().err
    else:
        with pytest.raises(ValueError, match="background='white'"):
            evaluate("a", "b", extractors=[{"name": "random", "width": 4, "size": 16, "layers": 2}])
