"""One phase as a process: a suite of `zoo bench`, for as long as its time lasts.

python -m benchmarks.on_gpu.phase correct --device cuda --out DIR --seconds 100
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import ROW_KINDS
from zoo.bench import record
from zoo.bench.run import run_suite
from zoo.bench.suite import read_suite

SUITES = ("correct", "quality", "speed")
# What a process that waits for its turn imports meanwhile: on a busy machine that takes as long as some rows.
AHEAD = (
    "zoo.assemble",
    "zoo.bench.quality",
    "zoo.conditioners.open_clip_models",
    "benchmarks.peers.cell",
    "diffusers.models",
)


def suite_of(phase: str, *, device: str, tiny: bool) -> dict[str, Any]:
    """The suite of a phase, as a mapping."""
    return importlib.import_module(f"benchmarks.on_gpu.{phase}").suite(device=device, tiny=tiny)


def told(path: Path) -> float:
    """When the time of a process that waits for its turn is over, of time.time, as soon as the file is there."""
    print("prepared", flush=True)
    while not path.exists():
        time.sleep(0.05)
    return float(path.read_text())


def main() -> None:
    """Run the phase; the record in the folder is all that it leaves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=SUITES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--data")
    parser.add_argument("--split", default="train", help="the split whose captions quality is measured with")
    parser.add_argument("--after", type=Path, help="an earlier record; what it didn't measure comes first")
    parser.add_argument("--wait", type=Path, help="import, and run until the time that this file will hold")
    asked = parser.parse_args()
    after = None if asked.after is None else record.read(asked.after)
    data = asked.data if asked.phase == "quality" else None

    def report(text: str, done: int, total: int) -> None:
        print(f"{done}/{total} {text}", flush=True)

    suite = read_suite(suite_of(asked.phase, device=asked.device, tiny=asked.tiny), kinds=ROW_KINDS)
    seconds = asked.seconds
    if asked.wait is not None:
        for name in AHEAD:
            with contextlib.suppress(ImportError):  # of a package that isn't there, which its rows will say
                importlib.import_module(name)
        seconds = max(told(asked.wait) - time.time(), 0.0)
    run_suite(
        suite, folder=asked.out, data=data, split=asked.split, resume=True, retry=False, seconds=seconds,
        after=after, report=report,
    )  # fmt: skip


if __name__ == "__main__":
    main()
