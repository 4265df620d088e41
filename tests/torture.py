"""How a run is tortured: killed at every system call of a save, killed at random, its files spoiled bit by bit.

The tests do it at a size that fits them (`tests/training/test_torture.py`); the full counts:

    python -m tests.torture

prints one line a trial and exits with 1 where a pass mark is missed. Everything is done in processes of its own
(`tests/processes.py`), so a kill is a real SIGKILL, and in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial, wraps
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from tests.processes import context, started
from tests.training.line import Line, settings, weights_of
from zoo.schema.errors import WeightsError
from zoo.training.engine import checkpoint
from zoo.training.engine.loop import Loop
from zoo.training.provenance import hash_of_tensors

P = ParamSpec("P")
R = TypeVar("R")
SAVES = 3
TORN = (0.0, 0.3, 1.0)  # shares of a file's bytes that are on disk when a write dies
STEPS = 20


def loop_in(folder: Path, **changes: object) -> Loop:
    """A small run: two averages, a schedule, epochs that end within batches, a checkpoint every step."""
    plan = settings(**{"steps": STEPS, "save_every": 1, "average": [0.9, 0.99], "batch_size": 3, **changes})
    return Loop(Line(dropout=0.3), plan, folder, identity="line")


def hash_of(loop: Loop) -> str:
    """Of trained and averaged weights."""
    return hash_of_tensors(weights_of(loop))


def one_thread(trial: Callable[P, R]) -> Callable[P, R]:
    """A trial with torch on one thread, as its processes are: other numbers of threads round differently."""

    @wraps(trial)
    def tried(*args: P.args, **kwargs: P.kwargs) -> R:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return trial(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return tried


def kill_at(count: int, torn: float) -> Callable[[], int]:
    """Make this process die at the `count`-th write, flush, rename or removal that a save asks for.

    A write that dies leaves a share `torn` of its bytes. Returns a function that says how many calls there were.
    """
    calls = 0

    def dying(real, write: bool):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls != count:
                return real(*args, **kwargs)
            if write:
                path = Path(args[1] if real is checkpoint_save_file else args[0])
                real(*args, **kwargs)
                os.truncate(path, int(path.stat().st_size * torn))
            elif torn == 1.0:
                real(*args, **kwargs)  # done, and nobody hears of it
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return call

    checkpoint_save_file, write_text = checkpoint.save_file, Path.write_text
    checkpoint.save_file = dying(checkpoint_save_file, True)
    Path.write_text = dying(write_text, True)  # type: ignore[method-assign]
    for name in ("fsync", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name), False))
    return lambda: calls


def save_all(where: Path, first: int = 0) -> Loop:
    """Train and save `SAVES` times, from the checkpoint of step `first` on."""
    loop = loop_in(where, keep=2)
    if first:
        loop.resume()
    while loop.step < SAVES:
        loop.train_step()
        loop.save()
    return loop


def _counting(where: Path, count: Synchronized[int]) -> None:
    calls = kill_at(-1, 0.0)
    save_all(where)
    count.value = calls()


def _dying(where: Path, number: int, share: float) -> None:
    kill_at(number, share)
    save_all(where)


@one_thread
def kills_in_saves(folder: Path, torn: tuple[float, ...] = TORN, every: int = 1) -> tuple[int, int]:
    """Die at every call of three saves; (kills, mismatches).

    A mismatch is a run that can't go on, or that ends in other weights than one never killed.
    """
    whole = loop_in(folder / "whole")
    kept = folder / "kept"
    expected = []
    for _ in range(SAVES):
        whole.train_step()
        expected.append(hash_of(whole))
        whole.save()

    count = context().Value("i", 0)
    started(partial(_counting, folder / "count", count)).join()
    kills = mismatches = 0
    for number in range(1, count.value + 1, every):
        for share in torn:
            shutil.rmtree(kept, ignore_errors=True)
            process = started(partial(_dying, kept, number, share))
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            path, skipped = checkpoint.newest(kept / "checkpoints")
            step = 0 if path is None else checkpoint.read(path)[2]
            # Nothing that bears a checkpoint's name may fail to verify.
            good = not skipped
            again = save_all(kept, first=step)
            good = good and hash_of(again) == expected[-1]
            if step:
                fresh = loop_in(kept)
                fresh.resume()
                good = good and hash_of(fresh) == expected[-1]
            mismatches += not good
    return kills, mismatches


def _run(where: Path, steps: int, saving: Synchronized[int]) -> None:
    """Train to the end, from the newest checkpoint where one is; `saving` is 1 while it saves."""
    save = checkpoint.save

    def flagged(*args, **kwargs):
        saving.value = 1
        try:
            return save(*args, **kwargs)
        finally:
            saving.value = 0

    checkpoint.save = flagged
    loop = loop_in(where, steps=steps)
    if checkpoint.newest(where / "checkpoints")[0] is not None:
        loop.resume()
    loop.run()


@one_thread
def kills_in_training(folder: Path, kills: int, steps: int = STEPS, seed: int = 0) -> dict[str, int]:
    """Kill runs at random moments until `kills` were; each is resumed until it ends.

    Counts kills, those that fell inside a save, runs that ended, and those among them that ended in other weights.
    """
    saving = context().Value("b", 0, lock=False)  # a process that dies would leave a lock shut
    whole = loop_in(folder / "whole", steps=steps)
    whole.run()
    expected = hash_of(whole)
    started(partial(_run, folder / "warm", 1, saving)).join()  # it begins the server
    begun = time.perf_counter()
    started(partial(_run, folder / "timed", steps, saving)).join()
    longest = 1.2 * (time.perf_counter() - begun)
    chance = random.Random(seed)
    found = {"kills": 0, "inside_saves": 0, "runs": 0, "mismatches": 0}
    run = folder / "run-0"
    while found["kills"] < kills or run.exists():
        saving.value = 0
        fresh, begun = not run.exists(), time.perf_counter()
        process = started(partial(_run, run, steps, saving))
        process.join(chance.uniform(0.0, longest) if found["kills"] < kills else None)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode == -signal.SIGKILL:
            found["kills"] += 1
            found["inside_saves"] += saving.value
            continue
        if fresh:  # the machine may be quicker, or slower, than it was
            longest = 1.2 * (time.perf_counter() - begun)
        ended = loop_in(run, steps=steps)
        if process.exitcode == 0:
            ended.resume()
        found["runs"] += 1
        found["mismatches"] += process.exitcode != 0 or ended.step != steps or hash_of(ended) != expected
        shutil.rmtree(run)
        run = folder / f"run-{found['runs']}"
    return found


def mutant(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a file, spoiled in one of five ways; never as they were."""
    kind = chance.choice(("truncate", "flip", "zero", "append", "swap"))
    place = chance.randrange(len(data))
    spoiled = bytearray(data)
    if kind == "truncate":
        spoiled = spoiled[:place]
    elif kind == "flip":
        spoiled[place] ^= 1 << chance.randrange(8)
    elif kind == "zero":
        spoiled[place : place + 64] = bytes(len(spoiled[place : place + 64]))
    elif kind == "append":
        spoiled += chance.choice((b"\0", b"\n", b"}", b" "))
    else:
        other = chance.randrange(len(data))
        spoiled[place], spoiled[other] = spoiled[other], spoiled[place]
    return bytes(spoiled) if bytes(spoiled) != data else data[:-1]


def mutants(folder: Path, count: int, seed: int = 0) -> tuple[int, int]:
    """Spoil files of a checkpoint; (how many, how many were not refused by an error that names the folder)."""
    loop = loop_in(folder)
    loop.train_step()
    path = loop.save()
    chance = random.Random(seed)
    accepted = 0
    files = sorted(path.iterdir())
    for i in range(count):
        file = files[i % len(files)]
        data = file.read_bytes()
        file.write_bytes(mutant(data, chance))
        try:
            checkpoint.read(path)
        except WeightsError as error:
            accepted += str(path) not in str(error)
        except Exception:
            accepted += 1
        else:
            accepted += 1
        file.write_bytes(data)
    checkpoint.read(path)
    return count, accepted


def main() -> int:
    """All of it, at full counts."""
    parser = argparse.ArgumentParser(description="Kill, spoil, resume, compare.")
    parser.add_argument("--kills", type=int, default=200, help="random kills in training")
    parser.add_argument("--mutants", type=int, default=2000, help="spoiled files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    passed = True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kills, wrong = kills_in_saves(folder / "saves")
        passed &= wrong == 0 and kills > 0
        print(f"killed at every call of {SAVES} saves: {kills} kills, {wrong} mismatches")
        found = kills_in_training(folder / "training", options.kills)
        enough = found["inside_saves"] >= options.kills // 4 and found["runs"] >= options.kills // 10
        passed &= found["mismatches"] == 0 and enough
        print("killed at random in training: " + ", ".join(f"{v} {k}" for k, v in found.items()))
        count, accepted = mutants(folder / "mutants", options.mutants)
        passed &= accepted == 0
        print(f"spoiled files: {count}, {accepted} not refused")
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
