"""`zoo bench` as a user runs it."""

from __future__ import annotations

import json

import pytest

from zoo.cli.main import run

SUITE = """
schema: zoo.suite/1
summary: A test.
settings: {repeats: 1, warm_up: 0}
models:
  tiny:
    schema: zoo.pipeline/1
    stages:
      - name: base
        size: 8
        denoiser:
          network: {name: unet, in_channels: 3, out_channels: 3, width: 8, mult: [1], blocks: 1, attention: plain,
                    attention_levels: [], heads: 1, context_width: null, groups: 4}
          schedule: cosine
          parameterization: v
        sampler: {name: ddim, steps: 2}
include:
  - {model: tiny}
  - {model: tiny, device: cuda}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SUITE)
    peak = {"matmul_tflops": 1.0, "convolution_tflops": 1.0, "tflops": 1.0, "matmul_size": 8, "convolution": "small"}
    monkeypatch.setattr("zoo.bench.machine.peak", lambda *_: peak)
    return tmp_path


@pytest.mark.slow
def test_suites_are_listed(capsys):
    assert run(["bench", "--list"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert {"quick", "vs-diffusers"} <= {line.split("\t")[0] for line in lines}
    assert "benchmarks/peers/suites" in told.err
    assert run(["bench", "--list", "--json"]) == 0
    assert {"name", "kind", "rows", "summary"} == set(json.loads(capsys.readouterr().out)[0])


def test_a_dry_run_shows_the_rows_and_how_long_they_take_and_makes_nothing(here, capsys, monkeypatch):
    assert run(["bench", "mine.yaml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "random weights: speed only" in out
    assert out.splitlines()[-1].startswith("about ")
    assert run(["bench", "mine.yaml", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"][0]["seconds"] > 0
    assert told["rows"][1]["seconds"] is None
    assert "the device 'cuda' is not there" in told["rows"][1]["reason"]
    none = {"seconds": None, "rows": {}, "reasons": {}, "reason": "it can't be told"}
    monkeypatch.setattr("zoo.bench.estimate.estimate", lambda *_, **__: none)
    assert run(["bench", "quick", "--dry-run", "--set", "matrix.0.steps=[3]"]) == 0
    out = capsys.readouterr().out
    assert "latent-text2img ddim 3 float32 b4 cpu" in out
    assert "it can't be told" in out
    assert not (here / "runs").exists()


def test_a_run_prints_its_rows_and_where_the_record_is(here, capsys):
    assert run(["bench", "mine.yaml", "--out", "made"]) == 0
    out = capsys.readouterr().out
    (path,) = (here / "made").glob("mine-*.json")
    assert out.splitlines()[-1].endswith(path.name)
    assert "unavailable: the device 'cuda' is not there" in out
    assert run(["bench", "mine.yaml", "--out", "made2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [r["status"] for r in told["record"]["rows"]] == ["measured", "unavailable"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quikc"], "did you mean 'quick'"),
        (["absent.yaml"], "does not exist"),
        (["quick", "--set", "settings.repeats=0"], "a number from 1 to"),
        (["quick", "--data", "nowhere.zip"], "'nowhere.zip' does not exist"),
        (["quick", "--set", "repeats"], "not KEY=VALUE"),
    ],
)
def test_a_wrong_request_is_told_at_once(words, said, capsys):
    assert run(["bench", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_row_that_failed_is_the_exit_code(capsys, monkeypatch):
    monkeypatch.setattr("zoo.bench.pipelines.prepare", lambda *_: "there is no memory for one picture")
    assert run(["bench", "mine.yaml"]) == 1
    assert "1 of 2 rows failed" in capsys.readouterr().err
