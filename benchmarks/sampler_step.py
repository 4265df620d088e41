"""The cost of every sampler's own arithmetic, next to the `step` of diffusers' scheduler of the same method.

The network is left out on both sides: zoo's loop is given a ready x0, diffusers' a ready output of the network. Since
diffusers' step also reads x0 from that output, which zoo does in its denoiser, the cost with the reading (and with
its search for NaN) is measured too. Noise is ready on both sides: drawing it costs more than all else and is no part
of the sampler. Numbers are microseconds for each evaluation of the network, so that solvers with two a step
compare. All samplers, both libraries and both shapes are interleaved and medians are taken, so that other load on the
machine falls on all alike.

    python -m benchmarks.sampler_step
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks import record
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import Eps
from zoo.diffusion.schedules import ScaledLinearSchedule
from zoo.diffusion.types import Condition, Prediction, Sampler
from zoo.schema.registry import read_registry_file, registry_file

SHAPES = ((4, 4, 16, 16), (1, 4, 64, 64))
SCHEDULE = ScaledLinearSchedule()
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TRAILING = {**BETAS, "timestep_spacing": "trailing"}
SDE = {**TRAILING, "algorithm_type": "sde-dpmsolver++"}
# Where a sampler's own defaults aren't the counterpart's.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "edm": {"solver": "euler"},
    "annealed-langevin": {"repeats": 2},
    "repaint": {"resamples": 2},
}
# (diffusers' scheduler, its arguments, arguments of its step); None: it has none that steps like this.
COUNTERPARTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]] | None] = {
    "ddpm": ("DDPMScheduler", {"clip_sample": False, **TRAILING}, {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, **TRAILING}, {}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", TRAILING, {}),
    "euler": ("EulerDiscreteScheduler", TRAILING, {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", TRAILING, {}),
    "heun": ("HeunDiscreteScheduler", TRAILING, {}),
    "edm": ("EulerDiscreteScheduler", TRAILING, {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", SDE, {}),
    "dpmpp-sde": ("DPMSolverSinglestepScheduler", {**BETAS, "algorithm_type": "sde-dpmsolver++"}, {}),
    "dpmpp-2s": ("DPMSolverSinglestepScheduler", BETAS, {}),
    "dpm-solver": ("KDPM2DiscreteScheduler", TRAILING, {}),
    "unipc": ("UniPCMultistepScheduler", TRAILING, {}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, **TRAILING}, {}),
    "lms": ("LMSDiscreteScheduler", TRAILING, {}),
    "lcm": ("LCMScheduler", {}, {}),
    "repaint": None,
    "predictor-corrector": None,
    "annealed-langevin": None,
}


class Given(nn.Module):
    """A network without cost."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.output


def samplers() -> dict[str, Sampler]:
    """Every registered sampler."""
    entries = [e for e in read_registry_file(registry_file()) if e.kind == "sampler"]
    return {e.name: e.load()(**ARGUMENTS.get(e.name, {})) for e in entries}


def zoo_run(sampler: Sampler, shape: tuple[int, ...], steps: int, *, reading: bool) -> Callable[[], float]:
    """A run, from x to the end; returns seconds an evaluation."""
    table = sampler.plan(SCHEDULE, steps)
    x, output, ready = torch.randn(shape), torch.randn(shape), torch.randn(shape)
    if reading:
        denoiser = Denoiser(network=Given(output), schedule=SCHEDULE, parameterization=Eps(), time_rounding="nearest")
        denoise = denoiser.bind(Condition(), table)
    else:
        prediction = Prediction(x0=output)

        def denoise(x: torch.Tensor, step: Any) -> Prediction:
            return prediction

    def run() -> float:
        began = perf_counter()
        sampler(denoise, table, x, noise=lambda step, draw=0: ready)
        return (perf_counter() - began) / len(table)

    return run


def diffusers_run(name: str, shape: tuple[int, ...], steps: int) -> Callable[[], float] | None:
    """The same of diffusers' counterpart, its scaling of the network's input included."""
    found = COUNTERPARTS.get(name)
    if found is None:
        return None
    made, said, in_step = found
    import diffusers

    scheduler: Any = getattr(diffusers, made)(**said)
    x, output = torch.randn(shape), torch.randn(shape)
    takes = inspect.signature(scheduler.step).parameters
    in_step = {k: v for k, v in in_step.items() if k in takes}

    def run() -> float:
        scheduler.set_timesteps(steps)  # its history starts anew; this is not counted
        timesteps = scheduler.timesteps
        state = x
        began = perf_counter()
        for t in timesteps:
            scheduler.scale_model_input(state, t)
            state = scheduler.step(output, t, state, return_dict=False, **in_step)[0]
        return (perf_counter() - began) / len(timesteps)

    return run


def with_ready_noise(stack: ExitStack) -> None:
    """Until the stack closes, diffusers' schedulers take noise that was drawn before."""
    ready: dict[tuple[int, ...], Tensor] = {shape: torch.randn(shape) for shape in SHAPES}

    def given(shape: Sequence[int], *_: Any, **__: Any) -> torch.Tensor:
        return ready[tuple(shape)]

    import diffusers

    modules = {getattr(diffusers, found[0]).__module__ for found in COUNTERPARTS.values() if found}
    for module in modules:
        if hasattr(sys.modules[module], "randn_tensor"):
            stack.enter_context(patch.object(sys.modules[module], "randn_tensor", given))


def measure(steps: int, repeats: int, *, warm: int = 3) -> list[dict[str, Any]]:
    """One row a sampler and shape; `diffusers_us` is None where there is no counterpart."""
    with ExitStack() as stack:
        with_ready_noise(stack)
        return _measure(steps, repeats, warm)


def _measure(steps: int, repeats: int, warm: int) -> list[dict[str, Any]]:
    runs: dict[tuple[str, tuple[int, ...]], dict[str, Callable[[], float] | None]] = {}
    for shape in SHAPES:
        for name, sampler in samplers().items():
            runs[name, shape] = {
                "zoo": zoo_run(sampler, shape, steps, reading=False),
                "zoo_with_reading": zoo_run(sampler, shape, steps, reading=True),
                "diffusers": diffusers_run(name, shape, steps),
            }
    seconds: dict[tuple[str, tuple[int, ...], str], list[float]] = {}
    for turn in range(repeats + warm):
        for (name, shape), each in runs.items():
            # The second one finds warmer caches: they take turns.
            for key, run in list(each.items())[:: 1 if turn % 2 else -1]:
                if run is not None:
                    spent = run()
                    if turn >= warm:
                        seconds.setdefault((name, shape, key), []).append(spent)
    rows = []
    for (name, shape), each in runs.items():
        took = {k: round(1e6 * statistics.median(seconds[name, shape, k]), 2) for k, run in each.items() if run}
        theirs = took.get("diffusers")
        counterpart = COUNTERPARTS.get(name)
        rows.append(
            {
                "sampler": name,
                "shape": list(shape),
                "counterpart": counterpart[0] if counterpart else None,
                "zoo_us": took["zoo"],
                "zoo_with_reading_us": took["zoo_with_reading"],
                "diffusers_us": theirs,
                "times_faster": None if theirs is None else round(theirs / took["zoo"], 1),
                "times_faster_with_reading": None if theirs is None else round(theirs / took["zoo_with_reading"], 1),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Every sampler's own arithmetic, against diffusers' scheduler steps.")
    parser.add_argument("--steps", type=int, default=50, help="steps of a run")
    parser.add_argument("--repeats", type=int, default=60, help="runs to take the median of")
    parser.add_argument("--quick", action="store_true", help="three runs and no record")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 3
    with torch.inference_mode():
        rows = measure(options.steps, options.repeats)
    print("sampler              shape            zoo us  with reading  diffusers us  times faster  with reading")
    for row in rows:
        said = [row[k] if row[k] is not None else "-" for k in ("diffusers_us", "times_faster")]
        last = row["times_faster_with_reading"]
        print(
            f"{row['sampler']:<20} {'x'.join(map(str, row['shape'])):<14} {row['zoo_us']:>8} "
            f"{row['zoo_with_reading_us']:>13} {said[0]:>13} {said[1]:>13} {'-' if last is None else last:>13}"
        )
    if not options.quick:
        made = record.make(
            "sampler_step",
            settings={"steps": options.steps, "repeats": options.repeats, "statistic": "median an evaluation"},
            values={"rows": rows},
            threads=torch.get_num_threads(),
            packages=("torch", "diffusers"),
        )
        print(record.write(made))


if __name__ == "__main__":
    main()
