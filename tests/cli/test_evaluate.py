"""`zoo evaluate` and `zoo reproduce` as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_pipeline
from zoo.cli.evaluate import read_blocks
from zoo.cli.main import run
from zoo.config.presets import read_preset


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Two folders of pictures, one of them with captions; no published weights anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("ZOO_INCEPTION_2015", raising=False)
    rng, rows = np.random.default_rng(0), []
    for name, count in (("drawn", 24), ("real", 30)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
            if name == "real":
                rows.append({"file_name": f"{i}.png", "text": f"thing {i}", "split": "test" if i % 2 else "train"})
    (tmp_path / "real" / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return tmp_path


SMALL = ["--extractor", "{name: random, width: 4, size: 16, layers: 2}"]


def test_values_are_printed_with_their_keys_and_what_is_missing_with_what_it_needs(here, capsys):
    words = ["evaluate", "drawn", "real:test", "--metrics", "fid,fd,{name: kid, size: 10},clip", *SMALL]
    assert run(words) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].startswith("fd[random-0-4x2-16@")
    assert lines[0].split("\t")[2].endswith("over 3 sets of 8")
    assert any(line.startswith("fid: unavailable: needs weights-inception-2015") for line in lines)
    assert any(line.startswith("clip: refused: it needs what") for line in lines)
    assert not list((here / "cache").rglob("*.npz"))  # kept in case of a kill only


@pytest.mark.parametrize("place", ["drawn/0.png", "drawn/0.png/below", "/dev/null"])
def test_a_cache_that_cannot_be_written_is_no_obstacle(here, capsys, monkeypatch, place):
    """A home that is read-only, or isn't there, ended every evaluation."""
    monkeypatch.setenv("ZOO_CACHE", place)
    assert run(["evaluate", "drawn", "real", "--json", *SMALL]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["values"]
    assert "ZOO_CACHE names another folder" in told.err


def test_with_json_stdout_is_one_value_and_the_same_again(here, capsys):
    words = ["evaluate", "drawn", "real", "--json", "--n", "20", "--seed-ranges", "1", "--features", "kept", *SMALL]
    found = []
    for _ in range(2):
        assert run(words) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["schema"] == "zoo.evaluation/1"
    assert found[0]["values"] == found[1]["values"]
    assert len(list((here / "kept").rglob("*.npz"))) == 2
    assert found[0]["values"][0]["count"] == 20
    assert found[0]["reference"]["count"] == 30
    assert found[0]["generated"]["chosen"].startswith("20 of")


def test_a_pipeline_is_drawn_with_the_captions_of_what_it_is_compared_with(monkeypatch, capsys):
    asked = []

    def build(config, *, overrides=None, device=None, dtype=None, **chosen):
        asked.append((config, overrides, chosen))
        return tiny_pipeline(steps=1, record={"config": {"name": "tiny"}, "config_sha256": "ab"})

    monkeypatch.setattr("zoo.build", build)
    words = ["evaluate", "latent-text2img", "real", "--split", "test", "-n", "6", "--seed-ranges", "2", "--json"]
    words += ["--steps", "3", "--set", "stages.0.sampler.eta=0.5", *SMALL]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    ((resolved, _, _),) = asked
    sampler = resolved.config["stages"][0]["sampler"]
    assert (resolved.config["name"], sampler["steps"], sampler["eta"]) == ("latent-text2img", 3, 0.5)
    assert found["generated"]["count"] == 12
    assert found["generated"]["captions"]["split"] == "test"
    assert found["values"][0]["count"] == 6
    assert len(found["values"][0]["values"]) == 2


def test_pictures_that_cannot_be_measured_are_refused_before_a_pipeline_draws(here, monkeypatch, capsys):
    Image.new("RGBA", (16, 16)).save(here / "real" / "29.png")  # the last that would be read
    monkeypatch.setattr("zoo.build", lambda *_, **__: tiny_pipeline(steps=1, record={"config": {"name": "tiny"}}))
    monkeypatch.setattr("zoo.evaluation.inputs.generated.PipelinePictures.__call__", lambda *_: pytest.fail("drew"))
    assert run(["evaluate", "latent-text2img", "real", "-n", "6", *SMALL]) == 2
    assert "'29.png' in 'real' is transparent; say --background white" in capsys.readouterr().err
    assert run(["data", "check", "real", "--size", "16"]) == 0
    assert "evaluate with --background white\t1\t29.png" in capsys.readouterr().out


def test_statistics_are_written_and_read(here, capsys):
    assert run(["evaluate", "real", "--metrics", "", "--save-statistics", "real.npz", *SMALL]) == 0
    assert capsys.readouterr().out.strip() == "real.npz"
    assert run(["evaluate", "drawn", "real.npz", "--metrics", "fd", *SMALL]) == 0
    by_file = capsys.readouterr().out.splitlines()[0].split("\t")
    assert run(["evaluate", "drawn", "real", "--metrics", "fd", *SMALL]) == 0
    assert by_file[:2] == capsys.readouterr().out.splitlines()[0].split("\t")[:2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["evaluate", "drawn", "real", "--metrics", "fdi"], 2, "did you mean 'fid'"),
        (["evaluate", "drawn", "real", "--metrics", "{name: kid, sizes: 3}"], 2, "did you mean 'size'"),
        (["evaluate", "drawn", "real", "--metrics", "[fd"], 2, "is not YAML"),
        (["evaluate", "drawn", "real", "--metrics", "3"], 2, "is no name"),
        (["evaluate", "drawn", "nowhere"], 2, "no folder, zip or statistics file 'nowhere'"),
        (["evaluate", "drawn", "real", "--extractor", "rand"], 2, "did you mean 'random'"),
        (["evaluate", "drawn", "real", "--protocol", "tf"], 2, "unknown protocol 'tf'"),
        (["evaluate", "drawn", "real", "--device", "cuda:77", *SMALL], 2, "'cuda:77' is not there"),
        (["evaluate", "drawn", "real", "--n", "25", *SMALL], 2, "it has 24"),
        (["reproduce", "latent-text2im"], 2, "did you mean 'latent-text2img'"),
        (["reproduce", "emoji-kl-f4"], 2, "is measured on pictures; give them as --data"),
    ],
)
def test_a_wrong_request_is_one_sentence(capsys, words, code, said):
    assert run(words) == code
    assert said in capsys.readouterr().err


def test_the_exit_code_tells_when_nothing_could_be_measured(capsys):
    assert run(["evaluate", "drawn", "real", "--metrics", "fid"]) == 1
    assert "unavailable: needs" in capsys.readouterr().out
    assert run(["evaluate", "drawn", "real", "--metrics", "kid", *SMALL]) == 2
    assert "it needs 1000 pictures" in capsys.readouterr().out


def test_lists_of_metrics_are_names_and_blocks():
    assert read_blocks("fid, {name: kid, size: 10},is") == ["fid", {"name": "kid", "size": 10}, "is"]
    assert read_blocks("") == []


@pytest.fixture
def toy(here, monkeypatch):
    claim = {"metric": "fd", "value": 9e9, "n": 12, "tolerance": 0.1, "source": "a toy", "extractor": "random"}
    config, _ = read_preset("latent-text2img")
    (here / "toy.yaml").write_text(
        json.dumps({**config, "published": [claim, {**claim, "value": 0, "tolerance": 9e9}]})
    )
    monkeypatch.setattr("zoo.build", lambda *a, **k: tiny_pipeline(steps=1))


def test_a_pipeline_that_publishes_nothing_says_so(here, capsys):
    config = {k: v for k, v in read_preset("latent-text2img")[0].items() if k != "published"}
    (here / "silent.yaml").write_text(json.dumps(config))
    assert run(["reproduce", "silent.yaml"]) == 2
    assert "publishes no value" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_published_is_held_against_what_comes_out(toy, capsys):
    assert run(["reproduce", "toy.yaml", "--data", "real:test"]) == 1
    differs, agrees, beside = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert differs[:4] == ["toy.yaml", "fd", "12", "9e+09"]
    assert (differs[7], agrees[7], agrees[8]) == ("differs", "agrees", "a toy")
    assert differs[4] == agrees[4]
    assert beside[0].startswith("toy.yaml, beside: fd-floor[")


def test_a_dry_run_is_a_list_of_what_is_needed(toy, capsys):
    assert run(["reproduce", "toy.yaml", "--data", "real:test", "--dry-run", "--batch-size", "2"]) == 0
    told = capsys.readouterr().out
    for part in (
        "weights emoji-base-32-text", "bytes: there", "reference: 'real:test' with 15 pictures, there", "pictures: 12;",
        "of one picture each: 12\n", "drawing them here: about ",
    ):  # fmt: skip
        assert part in told
    assert run(["reproduce", "toy.yaml", "--dry-run", "--json", "--batch-size", "2"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["schema"] == "zoo.reproduction/1"
