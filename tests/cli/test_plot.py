"""`zoo plot` as a user runs it."""

from __future__ import annotations

import pytest
from PIL import Image

import zoo
from tests.tiny import tiny_pipeline
from zoo.cli.main import run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_each_verb_writes_the_file_it_names(here, capsys, monkeypatch):
    asked = {}

    def build(resolved):
        asked.update(resolved.config["stages"][0]["sampler"])
        return tiny_pipeline(steps=3)

    monkeypatch.setattr(zoo, "build", build)
    Image.new("RGB", (20, 20), "red").save("in.png")
    block = "{name: shifted-cosine, size: 256}"
    assert run(["plot", "schedule", "cosine", block, "--out", "a.svg"]) == 0
    assert "shifted-cosine" not in capsys.readouterr().err
    assert (here / "a.svg").read_text().startswith("<?xml")
    assert run(["plot", "noising", "in.png", "--schedule", "flow", "--columns", "3", "--size", "8", "-o", "b.png"]) == 0
    assert run(["plot", "grid", "trailing", "{name: karras, rho: 3}", "--steps", "4", "-o", "c.png"]) == 0
    words = ["latent-text2img", "cat", "--columns", "2", "--steps", "3", "--set", "stages.0.sampler.eta=0.5"]
    assert run(["plot", "trajectory", *words, "-o", "d.png"]) == 0
    assert capsys.readouterr().out.split() == ["b.png", "c.png", "d.png"]
    assert (asked["eta"], asked["steps"]) == (0.5, 3)
    assert all(Image.open(f"{n}.png").width > 200 for n in "bcd")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["schedule", "cosin"], "did you mean 'cosine'"),
        (["schedule", "{name: cosine, ofset: 1}"], "offset"),
        (["schedule", "cosine", "-o", "a.gif"], ".png or .svg"),
        (["schedule"], "SCHEDULE"),
        (["schedule", "{name: cosine, offset: -1}"], "offset"),
        (["grid", "trailing", "--steps", "5000"], "5000"),
        (["grid", "trailin"], "trailing"),
        (["noising", "none.png"], "none.png"),
        (["trajectory", "latent-text2imgg"], "latent-text2img"),
        (["trajectory", "latent-text2img", "--sampler", "ddimm"], "ddim"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(here, capsys, words, sentence):
    assert run(["plot", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert list(here.iterdir()) == []
