"""An evaluation that is killed (SIGKILL) at a draw or at a rename goes on and ends with the same bits."""

import json
import os
import random
import shutil
import signal
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch

from tests.processes import started
from tests.torture import one_thread
from zoo.data.image_sets import ArrayPictures, DrawnPictures
from zoo.evaluation import evaluate
from zoo.evaluation.extractors import features as shards_module

TOY = {"name": "random", "width": 4, "size": 16, "layers": 2}
COUNT, SHARD, BATCH = 47, 10, 5


def drawn(asked, *, dies_at=None):
    """Pictures that depend on their id alone; the process dies at a draw."""

    def draw(ids):
        if dies_at is not None and len(asked) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        asked.append(list(ids))
        return torch.stack([picture(i) for i in ids])

    return DrawnPictures(draw, count=COUNT, mark="m")


def picture(sample):
    return torch.from_numpy(np.random.default_rng(sample).random((3, 8, 8), dtype=np.float32))


def values(source, folder):
    reference = ArrayPictures(np.random.default_rng(99).integers(0, 255, (40, 3, 8, 8), dtype=np.uint8))
    found = evaluate(source, reference, metrics=["fd", "prdc"], extractors=[TOY], features=folder, batch=BATCH)
    return [(v.key, v.value, v.error) for v in found.values]


def at_draw(number, folder):
    """Evaluate, and die at a draw."""
    shards_module.SHARD = SHARD
    values(drawn([], dies_at=number), folder)


def at_draw_in_parts(number, folder):
    shards_module.PART = 0.0  # seconds: after every batch
    values(drawn([], dies_at=number), folder)


def at_rename(number, folder):
    """Evaluate, and die at a rename."""
    shards_module.SHARD = SHARD
    rename, done = Path.replace, []

    def replace(self, target):
        done.append(target)
        if len(done) > number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.replace = replace  # type: ignore[method-assign]
    values(drawn([]), folder)


@pytest.mark.slow
@one_thread
def test_kill_9_at_draws_and_renames_loses_no_finished_shard_and_counts_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", SHARD)
    whole = values(drawn([]), None)
    finished = []
    for work, number, more in ((at_draw, 1, 0), (at_draw, 3, 1), (at_rename, 0, 0), (at_rename, 1, 1), (at_draw, 2, 1)):
        process = started(partial(work, number, tmp_path))
        process.join()
        assert process.exitcode == -signal.SIGKILL
        before, finished = finished, sorted(f.name for f in tmp_path.rglob("*.npz"))
        assert len(finished) == len(before) + more
        assert set(before) <= set(finished)
    asked = []
    assert values(drawn(asked), tmp_path) == whole
    missing = [i for start in range(0, COUNT, SHARD) for i in range(start, min(start + SHARD, COUNT))
               if f"{start:09d}-{min(start + SHARD, COUNT):09d}.npz" not in finished]  # fmt: skip
    assert [i for ids in asked for i in ids] == missing
    assert values(drawn([], dies_at=0), tmp_path) == whole  # nothing is drawn any more


@pytest.mark.slow
@one_thread
def test_kill_9_within_a_long_shard_loses_what_was_not_yet_written_in_between_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "PART", 0.0)  # seconds: after every batch
    whole = values(drawn([]), None)
    batches = [list(range(i, min(i + BATCH, COUNT))) for i in range(0, COUNT, BATCH)]  # one shard holds them all
    for number in (4, 3, 0):  # draws before each of them dies
        process = started(partial(at_draw_in_parts, number, tmp_path))
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(list(tmp_path.rglob("*.part"))) == 1
        assert not list(tmp_path.rglob("*.npz"))
    asked = []
    assert values(drawn(asked), tmp_path) == whole
    assert asked == batches[7:]
    assert not list(tmp_path.rglob("*.part"))


def pictures():
    return ArrayPictures(np.stack([(picture(i).numpy() * 255).astype(np.uint8) for i in range(COUNT)]))


def to_its_end(where):
    """Evaluate, and leave the values in a file beside the folder."""
    shards_module.SHARD = SHARD
    (where.parent / f"{where.name}.json").write_text(json.dumps(values(pictures(), where)))


def killed_at_random(folder, kills, seed=0):
    """Kill evaluations at random moments, `kills` times; (runs that ended, those of them with other values)."""
    chance = random.Random(seed)
    whole, done, ended, wrong = values(pictures(), None), 0, 0, 0
    started(partial(to_its_end, folder / "warm")).join()
    begun = perf_counter()
    started(partial(to_its_end, folder / "timed")).join()
    longest = perf_counter() - begun
    where = folder / "run-0"
    while done < kills or not ended or where.exists():
        process = started(partial(to_its_end, where))
        process.join(chance.uniform(0.0, longest) if done < kills else None)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode == -signal.SIGKILL:
            done += 1
            continue
        ended += 1
        found = json.loads((folder / f"{where.name}.json").read_text())
        wrong += process.exitcode != 0 or [tuple(v) for v in found] != whole
        shutil.rmtree(where)
        where = folder / f"run-{ended}"
    return ended, wrong


@pytest.mark.slow
@one_thread
def test_kill_9_at_random_moments_changes_no_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", SHARD)
    assert killed_at_random(tmp_path, 3)[1] == 0


@one_thread
def test_a_full_disk_is_told_and_leaves_no_half_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", SHARD)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            values(drawn([]), tmp_path)
    assert [f for f in tmp_path.rglob("*") if f.is_file()] == []
    assert values(drawn([]), tmp_path) == values(drawn([]), None)
