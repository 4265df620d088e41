"""From a folder to runs: what is said, what is kept when one is ended, and which pipeline draws with which run."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.refusals import refused
from zoo.cli.main import run
from zoo.schema.errors import UsageError

QUICK = [
    "train.batch_size=2", "train.precision=fp32", "network.width=8", "network.mult=[1]", "network.groups=4",
    "network.attention_levels=[0]", "objective.sheet_steps=2", "conditioner.layers=1",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """A folder with images, a recipe of `zoo new` and its pipeline."""
    monkeypatch.chdir(tmp_path)
    Path("fruit").mkdir()
    for i in range(6):
        Image.fromarray(np.full((16, 16, 3), 40 * i, np.uint8)).save(f"fruit/{i}.png")
        Path(f"fruit/{i}.txt").write_text(f"apple {'red' if i % 2 else 'green'}")
    assert run(["new", "text2img", "fruit", "--size", "16", "--steps", "10"]) == 0
    capsys.readouterr()
    return tmp_path


def train(*words):
    return run(["train", "fruit.yaml", *words, *(word for one in QUICK for word in ("--set", one))])


def test_a_pipeline_whose_weights_are_not_trained_yet_says_how(here, monkeypatch, capsys):
    for words in (["check", "fruit-draw.yaml"], ["prompts", "--model", "fruit-draw.yaml"]):
        assert run(words) == 2
        said = capsys.readouterr().err
        assert "are not there" in said
        assert "zoo train fruit.yaml [weights-missing]" in said
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    assert run(["check", "../fruit-draw.yaml"]) == 2
    assert "zoo train ../fruit.yaml --run ../runs/fruit" in capsys.readouterr().err
    Path("../runs/fruit").mkdir(parents=True)
    Path("../runs/fruit/run.json").write_text("{}")
    assert run(["check", "../fruit-draw.yaml"]) == 2
    assert "zoo train ../fruit.yaml --run ../runs/fruit --resume" in capsys.readouterr().err


@pytest.mark.slow
def test_each_run_has_a_pipeline_of_its_own_that_draws_from_any_folder(here, monkeypatch, capsys):
    assert train("--set", "train.steps=2") == 0
    assert train("--set", "train.steps=3", "--run", "runs/slower") == 0
    said = capsys.readouterr().err
    assert "3 steps of 2 samples" in said
    assert "samples: runs/slower/samples/step-00000003.png" in said
    assert "draw with: zoo generate 'apple green' --model runs/slower/export/fruit-draw.yaml" in said
    hashes = []
    Path("inner").mkdir()
    for folder, model in (
        (".", "runs/slower/export/fruit-draw.yaml"), ("inner", "../runs/slower/export/fruit-draw.yaml"),
        ("inner", "../fruit-draw.yaml"),
    ):  # fmt: skip
        monkeypatch.chdir(here / folder)
        pipe = zoo.build(model, steps=2)
        hashes.append(set(pipe("apple red", seed=0).record["weights"].values()))
    assert hashes[0] == hashes[1] != hashes[2]
    # A path that exists from the current folder alone is what it was.
    monkeypatch.chdir(here)
    text = Path("fruit-draw.yaml").read_text()
    Path("inner/old-draw.yaml").write_text(text)
    zoo.check("inner/old-draw.yaml")


@pytest.mark.slow
def test_resuming_names_what_differs_and_what_is_left(here, capsys):
    assert train("--set", "train.steps=2", "--set", "train.seed=5") == 0
    before = Path("runs/fruit/run.json").read_bytes()
    capsys.readouterr()
    assert train("--resume", "--set", "train.steps=4") == 2
    said = capsys.readouterr().err
    assert "train.seed was 5 and is 0; repeat --set train.seed=5" in said
    assert "[run-of-another-recipe]" in said
    assert train("--resume", "--set", "train.steps=2", "--set", "train.seed=5") == 0
    assert "nothing is left to train: 2 of 2 steps are taken; raise train.steps" in capsys.readouterr().err
    assert Path("runs/fruit/run.json").read_bytes() == before


@pytest.mark.slow
def test_a_run_that_fits_a_time_is_finished_and_less_time_changes_nothing(here, capsys):
    assert train("--seconds", "4") == 0
    told = capsys.readouterr()
    assert "4 seconds allow about" in told.err
    before = Path("runs/fruit/run.json").read_bytes()
    assert train("--resume", "--seconds", "1") == 0
    said = capsys.readouterr().err
    assert "nothing is left to train" in said
    assert "of 1 seconds are used; give more with --seconds" in said
    assert Path("runs/fruit/run.json").read_bytes() == before
    assert run(["report", "runs/fruit", "-o", "runs.html"]) == 0
    page = Path("runs.html").read_text()
    assert "not finished" not in page
    assert "fitted to 4 s" in page


def test_no_time_is_refused(here, capsys):
    assert train("--seconds", "0") == 2
    assert "seconds is 0; give a time over 0" in capsys.readouterr().err
    for wrong in (0, -1, float("nan")):
        with refused("number-out-of-range", UsageError, naming="seconds"):
            zoo.train("fruit.yaml", seconds=wrong)
    assert not Path("runs").exists()


@pytest.mark.slow
def test_python_trains_for_a_time_as_the_command_line_does(here):
    made = zoo.train("fruit.yaml", seconds=2, overrides=QUICK, callback=lambda p: None)
    assert json.loads(Path("runs/fruit/run.json").read_text())["sittings"][0]["train"]["seconds"] == 2.0
    assert made.steps > 0
    assert made.draw["model"] == Path("runs/fruit/export/fruit-draw.yaml")


@pytest.mark.slow
def test_ctrl_c_saves_the_step_or_says_that_nothing_was_saved(here, monkeypatch, capsys):
    from zoo.training.engine.loop import Loop

    step = Loop.train_step

    def interrupted(loop):
        if loop.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(loop)

    monkeypatch.setattr(Loop, "train_step", interrupted)
    words = ["--set", "train.steps=9", "--set", "train.save_every=9"]
    assert train(*words) == 130
    assert "step 4 is saved in 'runs/fruit/checkpoints/step-00000004'; go on with --resume" in capsys.readouterr().err
    monkeypatch.setattr(Loop, "train_step", step)
    assert train(*words, "--resume") == 0

    def at_once(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.training.run.objective_of", at_once)
    capsys.readouterr()
    assert train(*words, "--run", "runs/other") == 130
    assert "nothing was saved yet" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("place", ["scalars", "sheet", "export"])
def test_a_full_disk_is_one_sentence_with_the_run_s_folder(here, monkeypatch, capsys, place):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    where = {
        "scalars": "zoo.training.engine.logging.Scalars.write", "sheet": "zoo.training.engine.logging.Scalars.picture",
        "export": "zoo.training.export.write_atomically",
    }  # fmt: skip
    monkeypatch.setattr(where[place], full)
    assert train("--set", "train.steps=2", "--set", "train.save_every=1") == 1
    said = capsys.readouterr().err
    assert "the run's folder 'runs/fruit' can't be written to (No space left on device); make room" in said
    assert ("go on with --resume" in said) == (place == "export")  # before, no checkpoint was written
    assert "[output-unwritable]" in said


@pytest.mark.slow
def test_an_empty_caption_is_not_trained_on(here, capsys):
    rows = [json.loads(line) for line in Path("fruit/metadata.jsonl").read_text().splitlines()]
    rows[1]["text"] = " "
    Path("fruit/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train("--set", "train.steps=1") == 2
    said = capsys.readouterr().err
    assert "1 of 6 rows have an empty caption: '1.png'" in said
    assert "[caption-missing]" in said
