"""`zoo diff` and `zoo replay` as a user runs them: what they print and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

import zoo
from tests.inspection.test_replay import PIPE, rewrite
from zoo.cli.main import run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "build", lambda *_, **__: PIPE)
    return tmp_path


@pytest.fixture
def picture(here):
    (file,) = PIPE("cat", seed=3).save(here / "cat.png")
    return file


def test_diff_says_what_an_override_does(capsys):
    assert run(["diff", "latent-text2img", "--steps", "20", "--set", "stages.0.sampler.eta=0.5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "same network (emoji-latent-64); same autoencoder (emoji-kl-f4)",
        "30 -> 20 steps",
        "network evaluations 30 -> 20",
        "eta 0 -> 0.5",
    ]


def test_diff_holds_a_picture_against_a_pipeline(picture, capsys):
    assert run(["diff", "cat.png", "latent-text2img", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {d["what"]: (d["a"], d["b"]) for d in found["differences"]} == {
        "steps": (4, 30), "network_evaluations": (4, 30), "size": (32, 64),
    }  # fmt: skip


def test_diff_can_tell_by_its_exit_code(picture, capsys):
    assert run(["diff", "latent-text2img", "latent-text2img", "--exit-code"]) == 0
    assert run(["diff", "cat.png", "cat.png", "--exit-code"]) == 0
    assert run(["diff", "cat.png", "latent-text2img", "--exit-code"]) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["latent-text2img"], "alone differs from nothing"),
        (["latent-text2imgg", "cat.png"], "did you mean 'latent-text2img'"),
        (["none.yaml", "latent-text2img"], "none.yaml"),
        (["none.json", "latent-text2img"], "none.json"),
        (["none.png", "latent-text2img"], "none.png"),
        (["plain.png", "latent-text2img"], "no record"),
        (["latent-text2img", "--sampler", "ddimm"], "ddim"),
    ],
)
def test_diff_refuses_in_one_sentence(here, capsys, words, sentence):
    Image.new("RGB", (2, 2)).save("plain.png")
    assert run(["diff", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_diff_of_pictures_needs_no_torch(picture):
    code = (
        "import sys; from zoo.cli.main import run; assert run(['diff', 'cat.png', 'latent-text2img']) == 0; "
        "assert not {'torch', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_replay_says_equal_within_or_different_by_its_exit_code(picture, capsys):
    assert run(["replay", "cat.png", "-o", "again.png"]) == 0
    assert capsys.readouterr().out == "bit-equal: every value of every pixel is the same\n"
    assert list(Image.open("again.png").getdata()) == list(Image.open("cat.png").getdata())

    rewrite(picture, lambda r: r.update(seed=4))
    assert run(["replay", "cat.png", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "different"
    assert found["maximum"] > 2
    assert run(["replay", "cat.png", "--tolerance", "255"]) == 0
    assert capsys.readouterr().out.startswith("within 255: at most ")


def test_replay_of_what_cannot_be_drawn_again_is_code_2(here, picture, capsys):
    Image.new("RGB", (2, 2)).save("plain.png")
    assert run(["replay", "plain.png"]) == 2
    assert "holds no record" in capsys.readouterr().err
    rewrite(picture, lambda r: r["weights"].update(lost="0" * 64))
    assert run(["replay", "cat.png", "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["verdict"] == "impossible"
    assert "'lost' are not here" in told.err
    assert run(["replay", "cat.png", "--tolerance", "-1"]) == 2
