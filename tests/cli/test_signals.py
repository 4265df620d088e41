"""A command that is ended from outside says so, exits with 128 and the signal's number, and what it saved is whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from zoo.cli.main import run
from zoo.schema.errors import Terminated
from zoo.schema.registry import Entry

RECIPE = {
    "schema": "zoo.recipe/1", "name": "toy", "objective": "autoencoder-kl",
    "data": {"name": "image-folder", "path": "data", "size": 16},
    "autoencoder": {"name": "kl", "channels": 4, "z_channels": 4, "width": 8, "mult": [1, 2], "blocks": 1, "groups": 4},
    "train": {"steps": 10**6, "batch_size": 2, "precision": "fp32", "save_every": 1},
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    rows = []
    for i in range(4):
        Image.fromarray(np.full((16, 16, 3), 60 * i, np.uint8)).save(f"data/{i}.png")
        rows.append({"file_name": f"{i}.png", "text": "x", "split": "val" if i == 0 else "train"})
    Path("data/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))


def started(*words):
    # A shell without a terminal ignores SIGINT for what it starts beside itself, this test's process too.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([sys.executable, "-m", "zoo", *words], stderr=subprocess.PIPE, text=True, preexec_fn=heard)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, "ended by the system"), (signal.SIGHUP, 129, "ended by the system"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)  # fmt: skip
def test_a_run_that_is_ended_keeps_its_last_checkpoint_and_goes_on(here, number, code, said):
    process = started("train", "recipe.yaml", "--run", "run")
    until = time.monotonic() + 300.0
    while len(list(Path().glob("run/checkpoints/step-*/manifest.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert said in err
    assert "Traceback" not in err
    assert not [p for p in Path("run").rglob("*") if p.name.endswith(".tmp")]
    step = max(int(p.name.removeprefix("step-")) for p in Path("run/checkpoints").iterdir())
    words = ["train", "recipe.yaml", "--run", "run", "--resume", "--set", f"train.steps={step + 1}"]
    assert run(words) == 0


@pytest.mark.slow
def test_a_command_that_is_ended_as_it_starts_says_so_by_its_code(here):
    for wait in (0.05, 0.15, 0.3, 0.6):
        process = started("check", "recipe.yaml")
        time.sleep(wait)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        # Before the command listens the system itself ends it; it may be done already, and a recipe is no config.
        assert process.returncode in (-signal.SIGTERM, 143, 2)


def test_what_is_imported_meanwhile_is_not_called_broken(tmp_path, monkeypatch):
    (tmp_path / "slow_plugin.py").write_text("from zoo.schema.errors import Terminated\nraise Terminated()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Terminated) as told:
        Entry("sampler", "slow", "slow_plugin:X", "plugin package 'slow'").load()
    assert told.value.code == 143


def shell(line, folder, **environment):
    """A line of the shell with `zoo` in it; its exit code and stderr."""
    line = line.replace("zoo", f"{sys.executable} -m zoo")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=folder, env=os.environ | environment, capture_output=True,
        timeout=300, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_reader_that_stops_reading_ends_no_command_with_an_error(tmp_path):
    """Output that fills the pipe ended with 1: click answers a broken pipe itself."""
    assert shell("zoo list --json | head -c 1", tmp_path) == (0, "")
    assert shell("zoo describe sampler/ddim | true", tmp_path) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_silence_and_no_file_takes_their_number(here, closed):
    folder = Path.cwd()
    assert shell(f"zoo list {closed}", folder) == (0, "")
    assert shell(f"zoo train recipe.yaml --run run --set train.steps=1 {closed}", folder)[0] == 0
    assert shell(f"zoo train recipe.yaml --run run --resume --set train.steps=2 {closed}", folder)[0] == 0
    assert shell(f"zoo plot grid trailing -o a.png {closed}", folder)[0] == 0
    Image.open(folder / "a.png").load()
    assert shell(f"zoo check nowhere.yaml {closed}", folder)[0] == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("words", ["list --json", "describe sampler/ddim", "check nowhere.yaml --json"])
def test_output_that_cannot_be_written_is_an_error_in_a_sentence(tmp_path, words):
    code, err = shell(f"zoo {words} > /dev/full", tmp_path)
    assert code == (2 if "nowhere" in words else 1)
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", ["list", "doctor", "check class2img"])
def test_a_current_folder_that_was_deleted_is_said(tmp_path, words):
    """torch's MKL ended the process with a sentence of its own."""
    (tmp_path / "gone").mkdir()
    code, err = shell(f"rmdir ../gone; zoo {words}", tmp_path / "gone")
    assert code == 2
    assert "the current folder was deleted" in err
    assert "[current-folder-missing]" in err
