"""What a sampler's own arithmetic costs a step, next to diffusers' `scheduler.step` on the same tensors.

The network is left out on both sides: zoo's loop is given a ready x0, diffusers' a ready output of the network. Since
diffusers' step also reads x0 from that output, which zoo does in its denoiser, the cost with the reading (and with
its search for NaN) is measured too. Runs of both are interleaved and the median is taken, so that other load on the
machine falls on both alike.

    python -m benchmarks.sampler_step
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor, nn

import zoo.samplers.ddim
import zoo.samplers.dpmpp
from benchmarks import record
from zoo.denoiser import Denoiser
from zoo.parameterization import Eps
from zoo.schedules import ScaledLinearSchedule
from zoo.types import Condition, Prediction, Sampler

SHAPES = ((4, 4, 16, 16), (1, 4, 64, 64))
SCHEDULE = ScaledLinearSchedule()
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}


class Given(nn.Module):
    """A network that costs nothing."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.output


def no_noise(step: int, draw: int = 0) -> Tensor:
    raise AssertionError("these samplers are deterministic")


def zoo_run(sampler: Sampler, shape: tuple[int, ...], steps: int, *, reading: bool) -> Callable[[], object]:
    table = sampler.plan(SCHEDULE, steps)
    x, output = torch.randn(shape), torch.randn(shape)
    if reading:
        denoiser = Denoiser(network=Given(output), schedule=SCHEDULE, parameterization=Eps())
        denoise = denoiser.bind(Condition(), table)
    else:
        prediction = Prediction(x0=output)
        denoise = lambda x, step: prediction  # noqa: E731
    return lambda: sampler(denoise, table, x, noise=no_noise)


def diffusers_run(make: Callable, shape: tuple[int, ...], steps: int) -> Callable[[], float]:
    scheduler = make()
    x, output = torch.randn(shape), torch.randn(shape)

    def run() -> float:
        scheduler.set_timesteps(steps)  # its history starts anew; this is not counted
        timesteps = scheduler.timesteps
        state = x
        began = perf_counter()
        for t in timesteps:
            state = scheduler.step(output, t, state, return_dict=False)[0]
        return perf_counter() - began

    return run


def measure(steps: int, repeats: int) -> list[dict]:
    pairs = {
        "ddim": (zoo.samplers.ddim.DDIM(), lambda: DDIMScheduler(clip_sample=False, **BETAS)),
        "dpmpp-2m": (zoo.samplers.dpmpp.DPMpp2M(), lambda: DPMSolverMultistepScheduler(**BETAS)),
    }
    rows = []
    for name, (sampler, make) in pairs.items():
        for shape in SHAPES:
            own = zoo_run(sampler, shape, steps, reading=False)
            read = zoo_run(sampler, shape, steps, reading=True)
            theirs = diffusers_run(make, shape, steps)
            seconds: dict[str, list[float]] = {"zoo": [], "zoo_with_reading": [], "diffusers": []}
            for turn in range(repeats + 3):
                began = perf_counter()
                own()
                between = perf_counter()
                read()
                ended = perf_counter()
                spent = (between - began, ended - between, theirs())
                if turn >= 3:  # the first turns warm up
                    for key, value in zip(seconds, spent, strict=True):
                        seconds[key].append(value / steps)
            microseconds = {f"{key}_us": round(1e6 * statistics.median(value), 2) for key, value in seconds.items()}
            rows.append(
                {
                    "sampler": name,
                    "shape": list(shape),
                    **microseconds,
                    "times_faster": round(microseconds["diffusers_us"] / microseconds["zoo_us"], 1),
                    "times_faster_with_reading": round(
                        microseconds["diffusers_us"] / microseconds["zoo_with_reading_us"], 1
                    ),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="A sampler step's own arithmetic, against diffusers'.")
    parser.add_argument("--steps", type=int, default=50, help="steps of a run")
    parser.add_argument("--repeats", type=int, default=60, help="runs to take the median of")
    parser.add_argument("--quick", action="store_true", help="three runs and no record")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 3
    with torch.inference_mode():
        rows = measure(options.steps, options.repeats)
    print("sampler    shape            zoo us  with reading  diffusers us  times faster  with reading")
    for row in rows:
        print(
            f"{row['sampler']:<10} {'x'.join(map(str, row['shape'])):<14} {row['zoo_us']:>8} "
            f"{row['zoo_with_reading_us']:>13} {row['diffusers_us']:>13} {row['times_faster']:>13} "
            f"{row['times_faster_with_reading']:>13}"
        )
    if not options.quick:
        made = record.make(
            "sampler_step",
            settings={"steps": options.steps, "repeats": options.repeats, "statistic": "median per step"},
            values={"rows": rows},
            threads=torch.get_num_threads(),
            packages=("torch", "diffusers"),
        )
        print(record.write(made))


if __name__ == "__main__":
    main()
