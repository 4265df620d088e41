"""How long an image takes on an idle machine and beside other work: what the command line does, and fixed threads.

Processes of four kinds take turns, idle and beside two busy ones, so that other load falls on all alike:

- `default`: the command line as it is: a thread a core, which sleeps soon while it waits (`zoo.acceleration.threads`)
- `spinning`: the same, waiting as PyTorch does by itself
- `1 thread`, `2 threads`: `--threads 1` and `2`

Each draws one image by `zoo generate` in a new process (cold), and again and again in a process that has it loaded
(warm). Run it where nothing else runs:

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
if threads != "spinning":
    from zoo.acceleration.threads import prepare
    prepare(threads)
from zoo.assemble import assemble
import zoo
pipe = assemble(zoo.check(model))
pipe(prompt)
took = []
for _ in range(count):
    begun = time.perf_counter()
    pipe(prompt)
    took.append(time.perf_counter() - begun)
print(json.dumps(took))
"""
COLD = "import torch; from zoo.cli.main import main; main()"  # torch first: too late for zoo.acceleration.threads


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


def cold(kind: str, folder: str) -> float:
    """Seconds of the whole command in a new process."""
    threads = KINDS[kind]
    words = ["generate", PROMPT, "-o", os.path.join(folder, "image.png")]
    words += [] if threads is None else ["--threads", str(threads)]
    start = ["-c", COLD] if kind == "spinning" else ["-m", "zoo"]
    begun = perf_counter()
    subprocess.run(
        [sys.executable, *start, *words], check=True, cwd=record.ROOT, env=environment(), capture_output=True
    )
    return perf_counter() - begun


def warm(kind: str, count: int) -> float:
    """The median of the seconds of an image in a process that has drawn before."""
    said = [kind if kind == "spinning" else KINDS[kind], DEFAULT_MODEL, PROMPT, count]
    done = subprocess.run(
        [sys.executable, "-c", WARM, json.dumps(said)],
        check=True, cwd=record.ROOT, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    return statistics.median(json.loads(done.stdout))


def measure(rounds: int, count: int) -> dict[str, Any]:
    """Every quantity with all its runs: {idle, busy} x {cold, warm} x kind, and each default over the best."""
    runs: dict[str, dict[str, dict[str, list[float]]]] = {
        load: {what: {kind: [] for kind in KINDS} for what in ("cold", "warm")} for load in LIMITS
    }
    with TemporaryDirectory() as folder:
        for kind in KINDS:  # fills the disk's cache
            cold(kind, folder)
        for _ in range(rounds):
            for load in LIMITS:
                with others(2 if load == "busy" else 0):
                    for kind in KINDS:
                        runs[load]["cold"][kind].append(cold(kind, folder))
                        runs[load]["warm"][kind].append(warm(kind, count))
    seconds = {
        load: {what: {kind: record.median_of(found) for kind, found in kinds.items()} for what, kinds in whats.items()}
        for load, whats in runs.items()
    }
    over = {load: {what: over_best(kinds) for what, kinds in whats.items()} for load, whats in seconds.items()}
    return {"seconds": seconds, "default_over_best": over, "limits": LIMITS, "load_before": os.getloadavg()[0]}


def over_best(kinds: dict[str, Any]) -> float:
    """The default's median over that of the best fixed number of threads."""
    best = min(kinds[kind]["median"] for kind, threads in KINDS.items() if threads is not None)
    return round(kinds["default"]["median"] / best, 3)


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="An image on an idle machine and beside other work.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--images", type=int, default=5, help="images a warm process draws")
    parser.add_argument("--quick", action="store_true", help="one round, one image and no record")
    options = parser.parse_args()
    rounds, count = (1, 1) if options.quick else (options.rounds, options.images)
    values = measure(rounds, count)
    for load, whats in values["seconds"].items():
        for what, kinds in whats.items():
            shown = ", ".join(f"{kind} {found['median']:.2f} s" for kind, found in kinds.items())
            print(f"{load}, {what}: {shown}; default over best {values['default_over_best'][load][what]:.2f}")
    if not options.quick:
        settings = {"rounds": rounds, "images": count, "statistic": "median", "busy_processes": 2}
        print(record.write(record.make("busy", settings=settings, values=values)))


if __name__ == "__main__":
    main()
