"""Real processes over gloo, as torchrun starts them: one value for any number of them, batch, and kill -9."""

import json
import os
import signal
from functools import partial

import numpy as np
import pytest

from tests.processes import ended, worlds
from tests.tiny import tiny_cascade
from tests.torture import one_thread
from zoo.data.image_sets import ArrayPictures
from zoo.evaluation import evaluate
from zoo.evaluation.extractors import features as shards_module
from zoo.evaluation.inputs.generated import PipelinePictures

TOY = {"name": "random", "width": 4, "size": 16, "layers": 2}
COUNT, SHARD = 23, 5


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", SHARD)


def measured(folder, *, batch=8, before=lambda ids: None):
    """Every value of what a tiny cascade draws for captions; its pictures differ as pictures do."""
    real = np.random.default_rng(9).integers(0, 255, (30, 3, 16, 16), dtype=np.uint8)
    rows = [{"text": f"thing {i}", "file_name": f"{i}.png"} for i in range(7)]
    pipe = tiny_cascade(sizes=(8, 16), steps=2, record={"config_sha256": "ab"})

    class Watched(PipelinePictures):
        def __call__(self, ids):
            before(list(ids))
            return super().__call__(ids)

    drawn = Watched(pipe, count=COUNT, rows=rows, batch_size=batch)
    metrics = ["fd", "prdc", {"name": "kid", "size": 7}]
    found = evaluate(drawn, ArrayPictures(real), metrics=metrics, extractors=[TOY], features=folder, batch=batch)
    return None if found is None else {v.key: [v.value, v.error] for v in found.values}


def start(world, work, *arguments):
    """`work(rank, *arguments)` in as many processes, with the environment that torchrun gives; their exit codes."""
    return ended(worlds([partial(work, rank, *arguments) for rank in range(world)]), 60)


def measuring(rank, folder, batch, place):
    """Measure; the first process leaves what it found at `place`."""
    shards_module.SHARD = SHARD
    found = measured(folder, batch=batch)
    assert (found is None) == (rank > 0)
    if found is not None:
        place.write_text(json.dumps(found))


def dying(rank, folder):
    """Measure; the second process dies at its second shard."""
    shards_module.SHARD = SHARD

    def before(ids):
        (folder / f"{rank}-{ids[0]}.first").touch()
        if rank == 1 and ids[0] >= 2 * SHARD:
            os.kill(os.getpid(), signal.SIGKILL)

    measured(folder / "features", before=before)


def counting(rank, folder):
    """Measure, and note down every id that is drawn."""
    shards_module.SHARD = SHARD

    def before(ids):
        with (folder / f"{rank}.asked").open("a") as file:
            file.write("".join(f"{i}\n" for i in ids))

    found = measured(folder / "features", before=before)
    if found is not None:
        (folder / "found.json").write_text(json.dumps(found))


@pytest.mark.slow
@one_thread
@pytest.mark.parametrize("world", [1, 2, 4])
def test_values_are_one_for_any_number_of_processes_and_any_batch(tmp_path, small_shards, world):
    alone = measured(None)
    for batch in (1, 3, 8):
        folder = tmp_path / str(batch)
        assert start(world, measuring, folder, batch, tmp_path / f"{batch}.json") == [0] * world
        assert len({f.parent for f in folder.rglob("*.npz")}) == 2  # a folder a side, whoever filled it
        found = json.loads((tmp_path / f"{batch}.json").read_text())
        assert found.keys() == alone.keys()
        for key, values in found.items():
            assert values[0] == pytest.approx(alone[key][0], rel=1e-6), (key, batch)
            assert values[1] == (alone[key][1] and pytest.approx(alone[key][1], rel=1e-4)), (key, batch)


@pytest.mark.slow
@one_thread
def test_a_process_that_is_killed_ends_the_run_and_the_next_one_draws_what_is_missing_once(tmp_path, small_shards):
    whole = measured(None)
    codes = start(2, dying, tmp_path)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, None)  # it is told, and doesn't wait for ever
    done = {int(f.name[:9]) for f in (tmp_path / "features").rglob("*.npz") if f.stat().st_size}
    assert 5 in done
    assert start(2, counting, tmp_path) == [0, 0]
    asked = sorted(int(i) for f in tmp_path.glob("*.asked") for i in f.read_text().split())
    missing = [i for start in range(0, COUNT, SHARD) if start not in done for i in range(start, start + SHARD)]
    assert asked == [i for i in missing if i < COUNT]
    assert json.loads((tmp_path / "found.json").read_text()) == whole
