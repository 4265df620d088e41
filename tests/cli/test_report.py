"""`zoo report` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.invented import records
from tests.report.dom import read
from zoo.cli.main import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one record, whose pictures are not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    made = records()["invented-2026-11-21.json"]
    (tmp_path / "benchmarks" / "results" / "one.json").write_text(json.dumps(made))
    return tmp_path


def test_a_page_and_views_are_written_where_they_are_asked_for(here, capsys):
    assert run(["report", "--out", "pages/p.html", "--csv", "views", "--title", "A <b>title</b>"]) == 0
    said = capsys.readouterr().out.split()
    assert said[0] == "pages/p.html"
    assert sorted(said[1:]) == sorted(str(p) for p in Path("views").iterdir())
    tree = read(Path("pages/p.html").read_text(encoding="utf-8"))
    assert tree.all("h1")[0].text == "A <b>title</b>"
    assert "is not there" in tree.all("section", id="samples")[0].text
    assert not list(here.rglob("*.tmp"))


def test_records_may_be_named(here):
    assert run(["report", "benchmarks/results/one.json"]) == 0
    assert Path("report.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "-o", "page.pdf"], "ends in .html"),
        (["report", "nowhere"], "'nowhere' does not exist"),
        (["report", "empty"], "holds no *.json"),
        (["report", "out.json"], "no record that can be read"),
        (["report", "leads-out.json"], "is not inside"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_code_2_and_writes_nothing(here, capsys, words, said):
    (here / "empty").mkdir()
    (here / "out.json").write_text('{"schema": "zoo.doctor/1"}')
    made = records()["invented-2026-11-21.json"]
    made["rows"][0]["quality"]["samples"] = ["../secret.png"]
    (here / "leads-out.json").write_text(json.dumps(made))
    assert run(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not list(here.glob("*.html"))


def test_without_records_here_they_must_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["report"]) == 2
    assert "name the records" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_is_made_without_torch(here):
    code = (
        "from zoo.cli.main import run; assert run(['report']) == 0\n"
        "import sys; came = {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules); assert not came, came"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
