"""The last good checkpoint always loads: a few of the trials of `python -m tests.torture`, and full disks."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal

import pytest

from tests import torture
from tests.refusals import refused
from zoo.schema.errors import WeightsError
from zoo.training.engine import checkpoint


@pytest.mark.slow
def test_a_kill_at_any_call_of_a_save_loses_nothing(tmp_path):
    kills, mismatches = torture.kills_in_saves(tmp_path, torn=(0.3,), every=6)
    assert kills > 8
    assert mismatches == 0


@pytest.mark.slow
def test_a_kill_at_any_moment_of_a_run_changes_nothing(tmp_path):
    found = torture.kills_in_training(tmp_path, kills=4, steps=8)
    assert found["kills"] >= 4
    assert found["runs"] >= 1
    assert found["mismatches"] == 0


def test_no_spoiled_file_is_read(tmp_path):
    assert torture.mutants(tmp_path, 100) == (100, 0)


def saved(folder):
    loop = torture.loop_in(folder)
    loop.train_step()
    loop.save()
    loop.train_step()
    return loop


def left_as_it_was(folder) -> None:
    """The first save is there, nothing else is, and it loads."""
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-00000001"]
    resumed = torture.loop_in(folder)
    assert resumed.resume() == []
    assert resumed.step == 1


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO], ids=["full", "denied", "broken"])
@pytest.mark.parametrize("call", ["mkdir", "fsync", "rename"])
def test_a_disk_that_refuses_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, code, call):
    loop = saved(tmp_path)

    def fails(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with refused("output-unwritable", WeightsError, naming=os.strerror(code)) as said:
            loop.save()
    assert said.value.exit_code == 1
    assert "\n" not in str(said.value)
    left_as_it_was(tmp_path)


def test_a_file_that_can_only_be_written_in_part_leaves_the_earlier_checkpoint(tmp_path):
    loop = saved(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        with refused("output-unwritable", WeightsError):
            loop.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    left_as_it_was(tmp_path)


def test_a_checkpoint_of_the_first_schema_is_still_read(tmp_path):
    saved(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000001" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_text(json.dumps({**manifest, "schema": "zoo.checkpoint/1"}, indent=1))
    assert checkpoint.read(path.parent)[2] == 1
    assert torture.loop_in(tmp_path).resume() == []
    path.write_text(json.dumps({**manifest, "schema": "zoo.checkpoint/2"}, indent=1))
    with refused("checkpoint-damaged", naming="manifest.json"):
        checkpoint.read(path.parent)
