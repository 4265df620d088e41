"""`zoo reproduce`: what it prints and its exit code; what it measures is tested in tests/evaluation."""

import json

import pytest

from zoo.cli.main import run
from zoo.config.published import Published
from zoo.evaluation.reproduction import Outcome
from zoo.evaluation.requirements import Need

FD = Published(metric="fd", value=1.0, n=12, tolerance=0.1, source="a toy", split="test", protocol="by rows")
HITS = Published(metric="hit-score", value=0.2, n=12, tolerance=0.1, source="a toy")


def outcome(pipeline, verdict, floor, why=""):
    return Outcome(
        pipeline=pipeline, published=FD, verdict=verdict, own=1.05, error=0.01, key="fd[x]@12", why=why,
        beside={"fd-floor[x,n_ref=9]@12": floor},
    )  # fmt: skip


@pytest.fixture
def told(monkeypatch):
    def tell(*found):
        monkeypatch.setattr("zoo.evaluation.reproduction.reproduce", lambda name, **asked: list(found))

    return tell


def test_outcomes_are_rows_and_each_pipelines_floor_stands_beside_its_own(told, capsys):
    told(outcome("one", "agrees", 0.5), outcome("other", "differs", 0.75, why="so it is"))
    assert run(["reproduce", "one", "--data", "x.zip"]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split("\t") == ["one", "fd", "12", "1", "1.05", "0.01", "0.1", "agrees", "a toy"]
    assert rows[2:] == [
        "other, fd: so it is", "one, beside: fd-floor[x,n_ref=9]@12 0.5", "other, beside: fd-floor[x,n_ref=9]@12 0.75",
    ]  # fmt: skip
    told(outcome("one", "agrees", 0.5))
    assert run(["reproduce", "one", "--data", "x.zip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["beside"] == {"fd-floor[x,n_ref=9]@12": 0.5}


def test_a_dry_run_tells_pictures_once_and_who_is_measured(monkeypatch, capsys):
    weights = [
        {"name": "w", "file": "w.safetensors", "bytes": 5000, "sha256": "ab", "there": True},
        {"name": "v", "file": "v.safetensors", "bytes": 6000, "sha256": "cd", "there": False},
    ]
    said = {"pipeline": "one", "weights": weights, "extractor": "x, there", "reference": "'x' with 9", "images": 12}
    first = Need(**said, published=FD, evaluations=1200, seconds=300.0)
    again = Need(**said, published=HITS, evaluations=1200, seconds=300.0, again=True)
    alone = Need(**{**said, "pipeline": "w"}, published=HITS, evaluations=None, seconds=20.0)
    monkeypatch.setattr("zoo.evaluation.requirements.needs", lambda name, **asked: [first, again, alone])
    assert run(["reproduce", "one", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("pictures: 12; network evaluations of one picture each: 1,200\n") == 1
    assert out.count("pictures: those of the value before, needed once\n") == 1
    assert "drawing them here: about 5.0 minutes\n" in out
    assert "measuring them here: about 20 seconds\n" in out
    assert "weights v, 6,000 bytes: missing: needs v.safetensors, SHA-256 cd\n" in out
    assert "protocol: by rows, split test\n" in out
