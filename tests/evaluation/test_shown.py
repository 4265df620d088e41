"""How an evaluation is read: which values are better, what stands beside a distance, and what to ask instead."""

import json

import numpy as np
import pytest
from PIL import Image

from zoo.cli.main import run
from zoo.evaluation.comparison import evaluate
from zoo.evaluation.shown import explained
from zoo.schema.registry import registry

SMALL = {"name": "random", "width": 4, "size": 16, "layers": 2}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(24):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")


def test_every_metric_says_which_values_are_better():
    known = registry()
    for name in known.names("metric"):
        assert known.entry("metric", name).signature().constants["better"] in ("lower", "higher"), name


def test_a_line_says_which_values_are_better_and_what_stands_beside():
    values = [("fd[x@1]@8", "lower"), ("fd-floor[n_ref=9]@8", "lower"), ("recall[x]@8", "higher")]
    assert explained(values) == (
        "lower is better: fd; higher is better: recall; fd-floor: what real pictures have to each other"
    )


def test_the_command_says_it_beside_the_values_and_advises_commands(folders, capsys):
    assert run(["evaluate", "a", "b", "--metrics", "fd,fid", "--extractor", json.dumps(SMALL)]) == 0
    told = capsys.readouterr()
    assert "lower is better: fd; fd-floor: what real" in told.err
    assert "fd-infinity: extrapolated" in told.err
    assert "better" not in told.out
    assert told.out.splitlines()[-1].endswith("meanwhile: --metrics fd --extractor random")


def test_a_notebook_shows_values_in_a_table(folders):
    found = evaluate("a", "b", metrics=["fd", "fid"], extractors=[SMALL])
    page = found._repr_html_()
    assert page.count("<tr>") == 1 + len(found.values)
    assert "lower is better: fd" in page
    assert "extractors=[&#x27;random&#x27;]" in page
    assert "Value(" not in repr(found)
    assert found.to_dict()["values"][0]["better"] == "lower"
