"""`zoo generate` as a user runs it: files, records, refusals, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from zoo.cli.main import run
from zoo.generation import read_record


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = ["--steps", "2"]


def test_a_prompt_becomes_a_picture_with_its_record(here, capsys):
    assert run(["generate", "red apple, 3d style", *QUICK, "--seed", "5", "-o", "apple.png"]) == 0
    assert capsys.readouterr().out.strip() == "apple.png"
    assert Image.open(here / "apple.png").size == (64, 64)
    record = read_record(here / "apple.png")
    assert record["seed"] == 5
    assert record["images"][0]["prompt"] == "red apple, 3d style"
    assert record["config"]["stages"][0]["sampler"]["steps"] == 2
    assert set(record["weights"]) == {"emoji-clip", "emoji-kl-f4", "emoji-latent-64"}


def test_options_reach_the_pipeline(here, capsys):
    words = ["generate", "sun", "moon", "-n", "2", *QUICK, "--sampler", "ddpm", "--guidance", "2.5", "--json"]
    words += ["--set", "stages.0.sampler.grid=leading", "-o", "folder/", "--batch-size", "3", "--size", "32x64"]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert [f.rsplit("/", 1)[1] for f in told["files"]] == ["0000.png", "0001.png", "0002.png", "0003.png"]
    stage = told["record"]["config"]["stages"][0]
    assert stage["sampler"]["name"] == "ddpm"
    assert stage["sampler"]["grid"] in ("leading", {"name": "leading"})
    assert stage["guidance"][0]["scale"] == 2.5
    assert Image.open(here / "folder" / "0003.png").size == (64, 32)


def test_image_mask_and_safety_from_the_command_line(here, capsys):
    Image.new("RGB", (64, 64), (250, 240, 10)).save("in.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save("mask.png")
    assert run(["generate", "sun", "--image", "in.png", "--strength", "0.5", *QUICK, "-o", "a.png"]) == 0
    assert run(["generate", "sun", "--image", "in.png", "--mask", "mask.png", *QUICK, "-o", "b.png"]) == 0
    assert Image.open("b.png").getpixel((50, 30)) == (250, 240, 10)
    words = ["generate", "sun", *QUICK, "--set", "safety={name: mean-brightness, low: 0.99, high: 1.0}", "-o", "c.png"]
    assert run(words) == 0
    assert "refused" in capsys.readouterr().err
    assert not read_record("c.png")["images"][0]["safety"]["allowed"]


def test_a_grid_is_one_picture(here):
    assert run(["generate", "sun", "-n", "4", *QUICK, "--grid", "-o", "grid.png"]) == 0
    assert Image.open("grid.png").size == (132, 132)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--model", "latent-text2imgg"], 2, "latent-text2img"),
        (["--model", "none.yaml"], 2, "none.yaml"),
        (["--sampler", "ddimm"], 2, "ddim"),
        (["--set", "stages.0.sampler.etaa=1"], 2, "eta"),
        (["--set", "stages.0.sampler.steps=many"], 2, "steps"),
        (["--set", "nonsense"], 2, "KEY=VALUE"),
        (["--steps", "5000"], 2, "5000"),
        (["--size", "30"], 2, "multiples of 8"),
        (["--size", "big"], 2, "--size"),
        (["--seed", "-1"], 2, "seed"),
        (["-n", "0"], 2, "'-n'"),
        (["--strength", "0.5"], 2, "image"),
        (["--image", "none.png"], 2, "none.png"),
        (["--device", "cuda:99"], 2, "cuda:99"),
        (["--dtype", "float8"], 2, "float8"),
        (["-o", "out.txt"], 2, "picture format"),
        (["-o", "file/out.png"], 2, "file"),
        (["--unknown-option"], 2, "unknown-option"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_code_2_and_writes_nothing(here, capsys, words, code, sentence):
    (here / "file").write_text("a file where a folder is needed")
    assert run(["generate", "sun", *words]) == code
    told = capsys.readouterr().err.strip()
    assert sentence in told
    assert "Traceback" not in told
    assert sorted(p.name for p in here.iterdir()) == ["file"]


def test_unknown_words_are_named(here, capsys):
    assert run(["generate", "red appple, 3d style"]) == 2
    assert "'appple' (near: apple" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_the_output_is_refused_before_torch_is_loaded(here):
    code = (
        "import sys; from zoo.cli.main import run; "
        "assert run(['generate', 'sun', '--sampler', 'nope']) == 2; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_debug_shows_the_traceback(here, capsys):
    assert run(["--debug", "generate", "sun", "--sampler", "nope"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_fast_path_is_an_option_and_in_the_record(here):
    assert run(["generate", "sun", *QUICK, "-o", "slow.png"]) == 0
    assert run(["generate", "sun", *QUICK, "--fast", "-o", "fast.png"]) == 0
    slow, fast = (np.asarray(Image.open(here / f"{name}.png"), dtype=int) for name in ("slow", "fast"))
    assert abs(fast - slow).max() <= 1
    assert read_record(here / "fast.png")["fast"]["precompute"] is True
    assert "fast" not in read_record(here / "slow.png")


@pytest.mark.parametrize("name", ["a" * 252 + ".png", "ä" * 126 + ".png"])
def test_a_name_that_is_too_long_is_told_before_the_run(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zoo.build", None)  # nothing is loaded
    assert run(["generate", "red apple, 3d style", "-o", str(tmp_path / name)]) == 2
    assert "choose a shorter one" in capsys.readouterr().err


def test_a_dash_is_no_folder(here, capsys):
    assert run(["generate", "sun", *QUICK, "-o", "-"]) == 2
    assert "'-' names no file" in capsys.readouterr().err
    assert not list(here.iterdir())
