"""How long images take: four of them after loading, a sampler each, and the whole command, cold.

In this process the pipeline is built once, warmed up, and called several times with another seed each; the median
counts. The whole command (`zoo generate` in a new process, from the interpreter's start to the written files) is
timed with its peak memory; "cold" means a new process, not an empty disk cache.

    python -m benchmarks.generate
    python -m benchmarks.generate --model cascade-text2img      # every stage as its preset says
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import record

PROMPTS = ("red apple, 3d style", "cat face, noto style", "red heart, flat style", "pizza, cartoon style")
SAMPLERS = ("ddim", "dpmpp-2m", "ddpm")
PRESET = "preset"  # the stages' own samplers


def warm(pipe: Any, *, count: int, repeats: int) -> list[float]:
    """Seconds for `count` images, run after run, the first (which warms up) left out."""
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
    model: str, *, count: int, steps: int | None, samplers: Sequence[str], repeats: int, commands: int,
    build: Callable[..., Any],
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Everything measured, and the pipeline's record; without steps and samplers, all is as the preset says."""
    asked = {} if steps is None else {"steps": steps}
    arguments = [*(PROMPTS[i % len(PROMPTS)] for i in range(count)), "--model", model]
    arguments += [] if steps is None else ["--steps", str(steps)]
    # The command first, while this process is small: see `cold`.
    runs, peak = cold(arguments, commands)
    values: dict[str, Any] = {
        "whole_command_seconds": record.median_of(runs, 3),
        "whole_command_peak_bytes": peak,
        "after_loading_seconds": {},
    }
    made: dict[str, Any] = {}
    for sampler in samplers or ("",):
        began = perf_counter()
        pipe = build(model, **asked, **({"sampler": sampler} if sampler else {}))
        name = sampler or PRESET
        values.setdefault("build_seconds", {})[name] = round(perf_counter() - began, 3)
        values["after_loading_seconds"][name] = record.median_of(warm(pipe, count=count, repeats=repeats), 3)
        made = dict(pipe.record)
    return values, made


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="How long pictures take.")
    parser.add_argument("--model", default="latent-text2img", help="a pipeline's name or a config file")
    parser.add_argument("--count", type=int, default=4, help="pictures")
    parser.add_argument("--steps", type=int, help="sampling steps; each stage's own if not given")
    parser.add_argument("--samplers", nargs="*", help="samplers to time; those of the preset for a cascade")
    parser.add_argument("--repeats", type=int, default=7, help="runs to take the median of, a sampler")
    parser.add_argument("--commands", type=int, default=5, help="runs of the whole command")
    parser.add_argument("--quick", action="store_true", help="one picture, two steps, one run, and no record")
    options = parser.parse_args()
    if options.quick:
        options.count, options.steps, options.repeats, options.commands = 1, 2, 1, 1

    import zoo

    samplers = options.samplers
    if samplers is None:
        samplers = SAMPLERS if options.model == "latent-text2img" else ()
    values, made = measure(
        options.model, count=options.count, steps=options.steps, samplers=samplers, repeats=options.repeats,
        commands=options.commands, build=zoo.build,
    )  # fmt: skip
    for sampler, found in values["after_loading_seconds"].items():
        print(f"{sampler}: {options.count} pictures in {found['median']:.2f} s after loading")
    megabytes = values["whole_command_peak_bytes"] / 1e6
    print(f"whole command: {values['whole_command_seconds']['median']:.2f} s, peak {megabytes:.0f} MB")
    if not options.quick:
        import torch  # not before the command was measured: see `cold`

        settings = {
            "model": options.model, "count": options.count, "size": made["config"]["stages"][-1]["size"],
            "steps": [s["sampler"]["steps"] for s in made["config"]["stages"]],
            "repeats": options.repeats, "commands": options.commands, "statistic": "median", "dtype": "float32",
            "threads_asked": os.environ.get("OMP_NUM_THREADS"),
        }  # fmt: skip
        name = "generate" if options.model == "latent-text2img" else f"generate-{made['config']['name']}"
        whole = record.make(
            name, settings=settings, values=values, weights=made["weights"], threads=torch.get_num_threads()
        )
        print(record.write(whole))


if __name__ == "__main__":
    main()
