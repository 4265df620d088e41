"""`zoo generate` as a user runs it: files, records, refusals, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from zoo.cli.main import run
from zoo.pipeline.generation import read_record


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


LATENT = ["--model", "latent-text2img"]
QUICK = ["--steps", "2", *LATENT]


@pytest.mark.slow
def test_a_prompt_becomes_a_picture_with_its_record(here, capsys):
    assert run(["generate", "red apple, 3d style", *QUICK, "--seed", "5", "-o", "apple.png"]) == 0
    assert capsys.readouterr().out.strip() == "apple.png"
    assert Image.open(here / "apple.png").size == (64, 64)
    record = read_record(here / "apple.png")
    assert record["seed"] == 5
    assert record["images"][0]["prompt"] == "red apple, 3d style"
    assert record["config"]["stages"][0]["sampler"]["steps"] == 2
    assert set(record["weights"]) == {"emoji-base-32-text", "emoji-kl-f4", "emoji-latent-64"}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_grid_is_one_picture(here):
    assert run(["generate", "sun", "-n", "4", *QUICK, "--grid", "-o", "grid.png"]) == 0
    assert Image.open("grid.png").size == (132, 132)


@pytest.mark.slow
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
        (["-n", "0"], 2, "-n takes"),
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
    assert "'appple' (did you mean apple" in capsys.readouterr().err
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_the_output_is_refused_before_torch_is_loaded(here):
    code = (
        "import sys; from zoo.cli.main import run; "
        "assert run(['generate', 'sun', '--sampler', 'nope']) == 2; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_debug_shows_the_traceback(here, capsys):
    assert run(["--debug", "generate", "sun", "--sampler", "nope"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
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


# -- numbers that go on, earlier images, notes


@pytest.fixture
def drawn(here):
    """Two images of a call, in files of their own."""
    assert run(["generate", "sun", "moon", *QUICK, "--seed", "3", "-o", "folder/"]) == 0
    return here / "folder"


def test_a_second_run_into_a_folder_goes_on_and_overwrites_only_if_it_is_said(drawn):
    first = (drawn / "0000.png").read_bytes()
    assert run(["generate", "sun", *QUICK, "-o", "folder/"]) == 0
    assert sorted(p.name for p in drawn.iterdir()) == ["0000.png", "0001.png", "0002.png"]
    assert (drawn / "0000.png").read_bytes() == first
    assert run(["generate", "sun", *QUICK, "-o", "folder/", "--overwrite"]) == 0
    assert len(list(drawn.iterdir())) == 3
    assert (drawn / "0000.png").read_bytes() != first


def test_a_default_name_is_never_taken_twice(here):
    for _ in range(3):
        assert run(["generate", "sun", *QUICK]) == 0
    assert sorted(p.name for p in here.iterdir()) == ["out-1.png", "out-2.png", "out.png"]


def pixels(path):
    return np.asarray(Image.open(path), dtype=int)


def test_from_draws_an_image_again_but_for_what_is_given(drawn, here):
    second = drawn / "0001.png"
    assert run(["generate", "--from", str(second), "-o", "same.png"]) == 0
    assert abs(pixels("same.png") - pixels(second)).max() <= 2  # another batch rounds otherwise
    record = read_record("same.png")
    assert (record["images"][0]["prompt"], record["images"][0]["seed"], record["images"][0]["sample"]) == ("moon", 3, 1)
    assert run(["generate", "--from", str(second), "--steps", "3", "-o", "longer.png"]) == 0
    assert read_record("longer.png")["config"]["stages"][0]["sampler"]["steps"] == 3
    assert abs(pixels("longer.png") - pixels(second)).max() > 2
    assert run(["generate", "pizza", "--from", str(second), "-o", "pizza.png"]) == 0
    assert read_record("pizza.png")["images"][0]["prompt"] == "pizza"
    assert run(["generate", "--from", str(second), "-n", "2", "--seed", "9", "-o", "more.png"]) == 0
    assert read_record("more-1.png")["images"][0] == {"prompt": "moon", "negative": "", "sample": 1}


def test_from_needs_all_that_the_image_was_made_of(drawn, here, capsys):
    Image.new("RGB", (64, 64), (250, 240, 10)).save("in.png")
    assert run(["generate", "sun", "--image", "in.png", "--strength", "0.5", *QUICK, "-o", "a.png"]) == 0
    assert run(["generate", "--from", "a.png", "-o", "b.png"]) == 2
    assert "--image" in capsys.readouterr().err
    assert run(["generate", "--from", "a.png", "--image", "in.png", "-o", "b.png"]) == 0
    assert abs(pixels("a.png") - pixels("b.png")).max() <= 2
    assert run(["generate", "--from", "in.png"]) == 2  # an image without a record
    assert run(["generate", "--from", "a.png", "--model", "class2img"]) == 2


def test_an_image_is_a_model(drawn, here):
    assert run(["generate", "sun", "--model", str(drawn / "0000.png"), "-o", "sun.png"]) == 0
    assert read_record("sun.png")["config"] == read_record(drawn / "0000.png")["config"]


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (["apples, 3d style", *QUICK], "'apples' is read as 'apple'"),
        (["\N{SLICE OF PIZZA}", *QUICK], "is read as 'pizza'"),
        (["pizza, photo style", *QUICK], "'photo style' is no style"),
        (["cat on a pizza", *QUICK], "puts words together"),
        (QUICK, "no prompt was given"),
        (["sun", *QUICK, "--size", "32"], "learned images of 64x64"),
    ],
)
def test_what_is_unusual_is_drawn_with_a_note(here, capsys, words, note):
    assert run(["generate", *words]) == 0
    told = capsys.readouterr()
    assert note in told.err
    assert "Warning" not in told.err
    assert told.out.strip() == "out.png"


def test_nothing_is_said_of_what_the_model_learned(here, capsys):
    assert run(["generate", "red apple, 3d style", *QUICK]) == 0
    assert capsys.readouterr().err == ""


def test_the_default_is_the_pipeline_that_draws_best():
    import zoo
    from zoo.cli.generate import DEFAULT_MODEL
    from zoo.config.presets import read_preset

    scores = {
        name: value["value"]
        for name in zoo.names("pipeline")
        for value in read_preset(name)[0].get("published") or []
        if value["metric"] == "hit-score"
    }
    assert len(scores) > 1
    assert max(scores, key=scores.__getitem__) == DEFAULT_MODEL


def test_words_are_refused_before_torch_is_loaded(here):
    code = (
        "import sys; from zoo.cli.main import run; assert run(['generate', 'appel']) == 2; "
        "assert run(['prompts', 'apple']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_dash_is_no_folder(here, capsys):
    assert run(["generate", "sun", *QUICK, "-o", "-"]) == 2
    assert "'-' names no file" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_words_without_quotes_are_prompts_of_their_own_and_that_is_said(here, capsys):
    assert run(["generate", "cat", "face", *QUICK]) == 0
    said = capsys.readouterr().err
    assert (
        'note: each of the 2 words is drawn as a prompt of its own; for one picture of all quote them: "cat face"'
        in said
    )
    assert run(["generate", "cat face", "sun", *QUICK]) == 0
    assert "of its own" not in capsys.readouterr().err
