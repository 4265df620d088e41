"""`zoo doctor` as a user runs it: the installation, and a tiny cascade against a tiny dataset."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.tiny import tiny_cascade
from zoo.cli.main import run
from zoo.config.check import Resolved
from zoo.inspection import installation
from zoo.schema.registry import Entry, registry


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A dataset in the working folder, and a cascade of random weights under the name of a shipped pipeline."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": "cat", "split": "train" if i == 8 else "test"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    asked = []

    def resolve(name, overrides=None, shortcuts=None):
        asked.append((name, overrides, shortcuts["steps"]))
        return Resolved(config={"stages": [{"size": 8}, {"size": 16}]}, cards={}, plans=())

    def build(resolved, *, device=None):
        return tiny_cascade(sizes=(8, 16), steps=asked[-1][2] or 2, record={"config": {"name": "tiny"}})

    monkeypatch.setattr("zoo.build", build)
    monkeypatch.setattr("zoo.config.check.resolve", resolve)
    return asked


WORDS = ["doctor", "cascade", "latent-text2img", "--data", ".", "--n", "4", "--levels", "0,0.3"]


@pytest.mark.slow
def test_the_doctor_prints_a_table_and_writes_a_sheet(here, capsys):
    assert run([*WORDS, "-o", "sheet.png", "--steps", "1", "--set", "stages.1.augmentation=0.2"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("tiny: fd[emoji-evaluator@")
    assert "8 to 16" in told
    assert Image.open("sheet.png").size == (4 * 18 - 2, 4 * 18 - 2)
    assert here == [("latent-text2img", ["stages.1.augmentation=0.2"], 1)]


@pytest.mark.slow
def test_with_json_stdout_is_one_value(here, capsys):
    assert run([*WORDS, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "zoo.doctor/1"
    assert [s["name"] for s in report["stages"]] == ["s8", "s16"]
    assert [at["level"] for at in report["stages"][1]["sweep"]] == [0.0, 0.3]
    assert report["count"] == 4
    assert report["stages"][0]["floor"] is not None  # the train row is left out, 8 pictures of test are there


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["doctor", "cascad"], "did you mean 'cascade'"),
        (["doctor", "cascade", "latent-text2img"], "--data PATH"),
        ([*WORDS, "--levels", "0,2"], "levels from 0 to 1"),
        ([*WORDS, "--levels", "many"], "levels from 0 to 1"),
        ([*WORDS, "-o", "sheet.jpg"], "ends in .png"),
        ([*WORDS, "--extractor", "emoji-base-32-text"], "of kind 'conditioner' where an extractor"),
        ([*WORDS, "--n", "9"], "give 2 to 8"),
        (["doctor", "cascade", "x", "--data", "nowhere"], "does not exist"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_code_2(here, capsys, words, said):
    assert run(words) == 2
    assert said in capsys.readouterr().err


def test_the_installation_alone_lists_what_is_there_and_what_is_broken(monkeypatch, capsys):
    assert run(["doctor"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"zoo\t{zoo.__version__}\t")
    assert f"package\ttorch\t{version('torch')}" in told
    assert any(line.startswith("device\tcpu\t") for line in told)
    assert told[-1] == "nothing is broken"
    entry = Entry("sampler", "bad", "nowhere:X", "plugin package 'p'", "it is no good")
    monkeypatch.setitem(registry()._entries, ("sampler", "bad"), entry)
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["BROKEN\tsampler/bad\tit is no good", "1 broken"]


def test_the_installation_as_json_is_one_value(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    (tmp_path / "file.pth").write_bytes(b"12345")
    entry = Entry("sampler", "half", "zoo.samplers.ddim:Absent", "register()")  # what a list alone doesn't see
    monkeypatch.setitem(registry()._entries, ("sampler", "half"), entry)
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "zoo.installation/1"
    assert found["versions"]["torch"] == version("torch")
    assert found["caches"][0] == {"place": str(tmp_path), "exists": True, "files": 1, "bytes": 5}
    assert [(b["kind"], b["name"]) for b in found["broken"]] == [("sampler", "half")]
    assert "defines no 'Absent'" in found["broken"][0]["broken"]


def test_a_weight_file_that_is_cut_off_is_broken(monkeypatch, tmp_path):
    path = Path(zoo.__file__).parent / "weights" / "emoji-kl-f4.yaml"
    (tmp_path / "cut.yaml").write_text(path.read_text().replace("name: emoji-kl-f4", "name: cut"))
    (tmp_path / "cut.safetensors").write_bytes(b"short")
    (tmp_path / "emoji-kl-f4.safetensors").write_bytes(b"short")
    monkeypatch.setattr(installation, "card_names", lambda: [str(tmp_path / "cut.yaml")])
    (broken,) = installation.broken()
    assert "bytes" in broken["broken"] or "cut off" in broken["broken"]


def test_a_torch_that_fails_is_told_and_not_raised(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (device,) = installation.devices()
    assert device["device"] == "none"
    assert "torch fails (ModuleNotFoundError" in device["what"]
