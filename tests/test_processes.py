"""Processes that tests begin are clean, whatever the test process has done."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.processes import ended, started, worlds
from tests.training.line import together


def learn() -> None:
    x = torch.ones(3, requires_grad=True)
    (x * x).sum().backward()


def leave(place: Path) -> None:
    place.write_text(f"{os.environ['RANK']} of {os.environ['WORLD_SIZE']}, {os.environ['GIVEN']}, {Path.cwd()}")


def fail() -> None:
    raise ValueError("a fault")


def test_a_backward_pass_runs_in_a_process_after_autograd_has_threads_here():
    with FakeTensorMode():  # on a machine without a GPU it invents one, for which autograd begins a thread
        torch.ones(2)
    learn()
    assert ended([started(learn)]) == [0]


def test_a_process_has_the_environment_and_the_folder_of_now(tmp_path, monkeypatch):
    for i in range(2):
        monkeypatch.setenv("GIVEN", str(i))
        monkeypatch.chdir(tmp_path)
        assert ended(worlds([partial(leave, tmp_path / f"{rank}") for rank in range(2)])) == [0, 0]
        assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == [
            f"{rank} of 2, {i}, {tmp_path}" for rank in range(2)
        ]


def test_what_a_process_raises_is_known(tmp_path):
    assert together(1, fail, tmp_path) == [(1, "ValueError: a fault")]
