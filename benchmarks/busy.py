"""How long an image takes on an idle machine and beside other work: what the command line does, and fixed threads.

Processes of four kinds take turns, idle and beside two busy ones, so that other load falls on all alike:

- `default`: the command line as it is: a thread a core, which sleeps soon while it waits (`zoo.acceleration.threads`)
- `spinning`: the same, waiting as PyTorch does by itself
- `1 thread`, `2 threads`: `--threads 1` and `2`

Each draws one image by `zoo generate` in a new process (cold), and again and again in a process that has it loaded
(warm). A process that takes over `--limit` seconds is ended and counts as that long; the record says how many were. It
is written after every round, so an interrupted run keeps its whole rounds. Run it where nothing else runs:

    python -m benchmarks.busy
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks import record
from zoo.acceleration.threads import SAID
from zoo.cli.generate import DEFAULT_MODEL

PROMPT = "red apple, 3d style"
KINDS = {"default": None, "spinning": None, "1 thread": 1, "2 threads": 2}
LIMITS = {"idle": 1.25, "busy": 2.0}  # times the best of the fixed numbers of threads
BUSY = "x = 1.0\nwhile True:\n    x = x * 1.0000001 % 7.0"
WARM = """
import json, sys, time
threads, model, prompt, count = json.loads(sys.argv[1])
if threads == "spinning":
    import torch  # first: too late for zoo.acceleration.threads
else:
    from zoo.acceleration.threads import prepare
    prepare(threads)
import zoo
pipe = zoo.build(model)
pipe(prompt)
took = []
for _ in range(count):
    begun = time.perf_counter()
    pipe(prompt)
    took.append(time.perf_counter() - begun)
print(json.dumps(took))
"""
COLD = "import torch; from zoo.cli.main import main; main()"


def environment() -> dict[str, str]:
    """This process's environment, without settings of threads."""
    said = (*SAID, "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {k: v for k, v in os.environ.items() if k not in said}


@contextmanager
def others(count: int) -> Iterator[None]:
    """Keep this many processes busy while the block runs."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def ended(command: list[str], limit: float) -> str | None:
    """The output of a process, or None of one that took over `limit` seconds and was ended."""
    try:
        done = subprocess.run(
            command, check=True, cwd=record.ROOT, env=environment(), capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{command[:3]} failed: {error.stderr[-2000:]}") from error
    return done.stdout


def cold(kind: str, folder: str, limit: float) -> float:
    """Seconds of the whole command in a new process, at most `limit`."""
    threads = KINDS[kind]
    words = ["generate", PROMPT, "-o", os.path.join(folder, "image.png")]
    words += [] if threads is None else ["--threads", str(threads)]
    start = ["-c", COLD] if kind == "spinning" else ["-m", "zoo"]
    begun = perf_counter()
    done = ended([sys.executable, *start, *words], limit)
    return limit if done is None else perf_counter() - begun


def warm(kind: str, count: int, limit: float) -> float:
    """The median of the seconds of an image in a process that has drawn before; `limit` where that is too slow."""
    said = [kind if kind == "spinning" else KINDS[kind], DEFAULT_MODEL, PROMPT, count]
    done = ended([sys.executable, "-c", WARM, json.dumps(said)], limit)
    return limit if done is None else statistics.median(json.loads(done))


def measure(rounds: int, count: int, limit: float) -> Iterator[dict[str, Any]]:
    """After each round every quantity with its runs so far: {idle, busy} x {cold, warm} x kind, default over best."""
    before = os.getloadavg()[0]
    runs: dict[str, dict[str, dict[str, list[float]]]] = {
        load: {what: {kind: [] for kind in KINDS} for what in ("cold", "warm")} for load in LIMITS
    }
    with TemporaryDirectory() as folder:
        for kind in KINDS:  # fills the disk's cache
            cold(kind, folder, limit)
        for done in range(1, rounds + 1):
            for load in LIMITS:
                with others(2 if load == "busy" else 0):
                    for kind in KINDS:
                        runs[load]["cold"][kind].append(cold(kind, folder, limit))
                        runs[load]["warm"][kind].append(warm(kind, count, limit))
            yield summed(runs, limit) | {"rounds": done, "load_before": before}


def summed(runs: dict[str, dict[str, dict[str, list[float]]]], limit: float) -> dict[str, Any]:
    """Medians of the runs, each default over the best, and how many runs were ended at the limit."""
    seconds = {
        load: {what: {kind: record.median_of(found) for kind, found in kinds.items()} for what, kinds in whats.items()}
        for load, whats in runs.items()
    }
    over = {load: {what: over_best(kinds) for what, kinds in whats.items()} for load, whats in seconds.items()}
    cut = sum(
        v >= limit for whats in runs.values() for kinds in whats.values() for found in kinds.values() for v in found
    )
    return {"seconds": seconds, "default_over_best": over, "limits": LIMITS, "ended_at_limit": cut}


def over_best(kinds: dict[str, Any]) -> float:
    """The default's median over that of the best fixed number of threads."""
    best = min(kinds[kind]["median"] for kind, threads in KINDS.items() if threads is not None)
    return round(kinds["default"]["median"] / best, 3)


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="An image on an idle machine and beside other work.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--images", type=int, default=5, help="images a warm process draws")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a process is ended")
    parser.add_argument("--quick", action="store_true", help="one round, one image and no record")
    options = parser.parse_args()
    rounds, count = (1, 1) if options.quick else (options.rounds, options.images)
    values: dict[str, Any] = {}
    begun = perf_counter()
    for values in measure(rounds, count, options.limit):
        print(f"round {values['rounds']} of {rounds}, {perf_counter() - begun:.0f} s", flush=True)
        if not options.quick:
            settings = {"rounds": values["rounds"], "images": count, "statistic": "median", "busy_processes": 2,
                        "limit_seconds": options.limit}  # fmt: skip
            record.write(record.make("busy", settings=settings, values=values))
    for load, whats in values["seconds"].items():
        for what, kinds in whats.items():
            shown = ", ".join(f"{kind} {found['median']:.2f} s" for kind, found in kinds.items())
            print(f"{load}, {what}: {shown}; default over best {values['default_over_best'][load][what]:.2f}")


if __name__ == "__main__":
    main()
