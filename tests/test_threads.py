"""That PyTorch's threads are told to sleep while they wait, in time, and how many there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from zoo.acceleration.threads import SAID, SPIN

ASK = "import json, os, sys, torch; print(json.dumps([os.environ.get('GOMP_SPINCOUNT'), torch.get_num_threads()]))"


def ask(code: str, **said: str) -> list:
    """What a fresh process that runs `code` has after it: the spin count and the number of threads."""
    clean = {k: v for k, v in os.environ.items() if k not in (*SAID, "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ASK}"], env={**clean, **said}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


CLI = """
import sys
sys.argv = ["zoo", *{words!r}]
import zoo.cli.main as command_line
try:
    command_line.main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        CLI.format(words=["list", "sampler"]),
        "import zoo; zoo.build('class2img')",
        "import zoo; zoo.load('emoji-class-32')",
        "from zoo.acceleration.threads import prepare; assert prepare()",
    ],
    ids=["command-line", "build", "load", "prepare"],
)
def test_threads_sleep_soon_by_default(code):
    assert ask(code)[0] is not None


def test_what_the_user_said_stays():
    code = "from zoo.acceleration.threads import prepare; assert prepare()"
    assert ask(code, GOMP_SPINCOUNT="7")[0] == "7"
    assert ask(code, OMP_WAIT_POLICY="active")[0] is None


def test_the_number_of_threads_is_an_option():
    assert ask(CLI.format(words=["generate", "sun", "--threads", "1", "--sampler", "nothing"]))[1] == 1
    assert ask("import torch; from zoo.acceleration.threads import prepare; prepare(1)")[1] == 1


def test_after_torch_it_is_too_late_and_said():
    assert ask("import torch; from zoo.acceleration.threads import prepare; assert not prepare()")[0] is None


def test_the_library_of_threads_heeds_it():
    """GNU's OpenMP prints what it read when it is loaded; another library's has no such setting."""
    done = subprocess.run(
        [sys.executable, "-c", "from zoo.acceleration.threads import prepare; prepare(); import torch"],
        env={**{k: v for k, v in os.environ.items() if k not in SAID}, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if SPIN in line]
    if not lines:
        pytest.skip("this PyTorch has no GNU OpenMP, so how it waits was not looked at")
    assert "1000" in lines[0]
