"""Processes that are killed at every call of a save and at random moments: nothing is lost, nothing counted twice."""

from __future__ import annotations

import json
import random
import shutil
import signal
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tests import torture
from tests.processes import started
from tests.tiny import tiny_cascade

COUNT, SHARD = 23, 5


def saves(folder: Path, share: float = 1.0) -> dict[str, Any]:
    """Killed at every write, flush, rename and removal of three saves, with none, some and all of a write done."""
    kills, mismatches = torture.kills_in_saves(folder, every=max(1, round(1 / share)))
    return {"cases": kills, "faults": [f"{mismatches} runs end in other weights"] if mismatches else []}


def training(folder: Path, kills: int = 200, seed: int = 0) -> dict[str, Any]:
    """Killed at random moments of runs that are resumed until they end."""
    found = torture.kills_in_training(folder, kills, seed=seed)
    faults = [f"{found['mismatches']} runs end in other weights"] if found["mismatches"] else []
    if found["inside_saves"] < kills // 4 or found["runs"] < kills // 10:
        faults.append(f"too few kills inside a save ({found['inside_saves']}) or runs that ended ({found['runs']})")
    return {"cases": found["kills"], **found, "faults": faults}


def _measured(folder: Path | None) -> dict[str, Any]:
    """Draw with a tiny cascade and evaluate what it drew, in shards of a few."""
    from zoo.data.image_sets import ArrayPictures
    from zoo.evaluation import evaluate
    from zoo.evaluation.extractors import features as shards
    from zoo.evaluation.inputs.generated import PipelinePictures

    shards.SHARD = SHARD
    real = np.random.default_rng(9).integers(0, 255, (30, 3, 16, 16), dtype=np.uint8)
    rows = [{"text": f"thing {i}", "file_name": f"{i}.png"} for i in range(7)]
    pipe = tiny_cascade(sizes=(8, 16), steps=2, record={"config_sha256": "ab"})
    drawn = PipelinePictures(pipe, count=COUNT, rows=rows, batch_size=4)
    toy = {"name": "random", "width": 4, "size": 16, "layers": 2}
    found = evaluate(drawn, ArrayPictures(real), metrics=["fd", "prdc"], extractors=[toy], features=folder, batch=4)
    assert found is not None
    return {v.key: [v.value, v.error] for v in found.values}


def _leave(folder: Path, place: Path) -> None:
    place.write_text(json.dumps(_measured(folder)))


@torture.one_thread
def evaluation(folder: Path, kills: int = 100, seed: int = 0) -> dict[str, Any]:
    """Killed at random while samples are drawn and measured, and begun again until each evaluation ends."""
    folder.mkdir(parents=True)
    chance, found = random.Random(seed), {"kills": 0, "runs": 0}
    faults, place = [], folder / "values.json"
    started(partial(_leave, folder / "warm", place)).join()
    begun = perf_counter()
    started(partial(_leave, folder / "timed", place)).join()
    longest, whole = perf_counter() - begun, json.loads(place.read_text())
    features = folder / "features"
    while found["kills"] < kills or features.exists():
        fresh, begun = not features.exists(), perf_counter()
        process = started(partial(_leave, features, place))
        process.join(chance.uniform(0.0, longest) if found["kills"] < kills else None)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            found["kills"] += 1
            continue
        found["runs"] += 1
        if fresh:  # the machine may be quicker, or slower, than it was
            longest = perf_counter() - begun
        shards = [[int(part) for part in file.stem.split("-")] for file in features.rglob("*.npz")]
        for size in (COUNT, 30):  # of what was drawn, and of what it is compared with
            ids = [i for first, last in shards for i in range(first, last) if last <= size]
            if not set(range(size)) <= set(ids):
                faults.append(f"run {found['runs']}: samples are missing")
        if len(shards) != -(-COUNT // SHARD) + 30 // SHARD:
            faults.append(f"run {found['runs']}: {len(shards)} shards")
        if process.exitcode != 0 or json.loads(place.read_text()) != whole:
            faults.append(f"run {found['runs']}: other values")
        shutil.rmtree(features)
    return {"cases": found["kills"], **found, "faults": faults}
