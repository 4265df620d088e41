"""How long pictures take: four 64x64 ones at 30 steps after loading, a sampler each, and the whole command, cold.

In this process the pipeline is built once, warmed up, and asked several times with another seed each; the median
counts. The whole command (`zoo generate` in a new process, from the interpreter's start to the written files) is
timed with its peak memory; "cold" means a new process, not an empty disk cache.

    python -m benchmarks.generate
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import record

PROMPTS = ("red apple, 3d style", "cat face, noto style", "red heart, flat style", "pizza, cartoon style")
SAMPLERS = ("ddim", "dpmpp-2m", "ddpm")


def warm(pipe: Any, *, count: int, repeats: int) -> list[float]:
    """Seconds for `count` pictures, run after run, the first (which warms up) left out."""
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    runs = []
    for turn in range(repeats + 1):
        began = perf_counter()
        pipe(prompts, seed=turn)
        runs.append(perf_counter() - began)
    return runs[1:]


def cold(arguments: list[str], repeats: int) -> tuple[list[float], int]:
    """Seconds of the whole command, run after run, and the largest peak memory of its processes in bytes."""
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "zoo.cli.main",
                "generate",
                *arguments,
                "-o",
                str(Path(folder) / "out.png"),
            ]
            began = perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, cwd=record.ROOT)
            runs.append(perf_counter() - began)
            if done.returncode != 0:
                raise RuntimeError(f"`zoo generate` exited with {done.returncode}: {done.stderr}")
    # The largest child so far. A child's peak is at least its parent's at the fork, so this one has not imported torch
    # yet. Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return runs, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def measure(
    model: str, *, count: int, steps: int, repeats: int, commands: int, build: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Everything measured, and the hashes of the weights it was measured with."""
    arguments = [*(PROMPTS[i % len(PROMPTS)] for i in range(count)), "--model", model, "--steps", str(steps)]
    # The command first, while this process is small: see `cold`.
    runs, peak = cold(arguments, commands)
    values: dict[str, Any] = {
        "whole_command_seconds": record.median_of(runs, 3),
        "whole_command_peak_bytes": peak,
        "after_loading_seconds": {},
    }
    hashes: dict[str, str] = {}
    for sampler in SAMPLERS:
        began = perf_counter()
        pipe = build(model, sampler=sampler, steps=steps)
        values.setdefault("build_seconds", {})[sampler] = round(perf_counter() - began, 3)
        hashes = dict(pipe.record.get("weights", {}))
        values["after_loading_seconds"][sampler] = record.median_of(warm(pipe, count=count, repeats=repeats), 3)
    return values, hashes


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="How long pictures take.")
    parser.add_argument("--model", default="latent-text2img", help="a pipeline's name or a config file")
    parser.add_argument("--count", type=int, default=4, help="pictures")
    parser.add_argument("--steps", type=int, default=30, help="sampling steps")
    parser.add_argument("--repeats", type=int, default=7, help="runs to take the median of, a sampler")
    parser.add_argument("--commands", type=int, default=5, help="runs of the whole command")
    parser.add_argument("--quick", action="store_true", help="one picture, two steps, one run, and no record")
    options = parser.parse_args()
    if options.quick:
        options.count, options.steps, options.repeats, options.commands = 1, 2, 1, 1

    import zoo

    values, hashes = measure(
        options.model, count=options.count, steps=options.steps, repeats=options.repeats, commands=options.commands,
        build=zoo.build,
    )  # fmt: skip
    for sampler, found in values["after_loading_seconds"].items():
        print(f"{sampler}: {options.count} pictures in {found['median']:.2f} s after loading")
    megabytes = values["whole_command_peak_bytes"] / 1e6
    print(f"whole command: {values['whole_command_seconds']['median']:.2f} s, peak {megabytes:.0f} MB")
    if not options.quick:
        import torch  # not before the command was measured: see `cold`

        settings = {
            "model": options.model, "count": options.count, "size": 64, "steps": options.steps,
            "repeats": options.repeats, "commands": options.commands, "statistic": "median", "dtype": "float32",
            "threads_asked": os.environ.get("OMP_NUM_THREADS"),
        }  # fmt: skip
        made = record.make(
            "generate", settings=settings, values=values, weights=hashes, threads=torch.get_num_threads()
        )
        print(record.write(made))


if __name__ == "__main__":
    main()
