"""The sampling loop of either library from given latents under given conditions, and one decoding.

zoo's is what `zoo.pipeline.stage_run` runs after the text and before the decoder. diffusers' is what its pipelines run
there (`StableDiffusionPipeline`, `StableDiffusionXLPipeline`, `DDIMPipeline`), without their progress bars and checks.
Each step leaves a mark: an event on a cuda device, without synchronisation, else a reading of the clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.networks import pooled_and_sizes, scheduler_of
from zoo.bench.measure import quantile
from zoo.bench.rows import Row
from zoo.diffusion.noise import AddressedNoise, bound
from zoo.diffusion.types import Condition
from zoo.guidance.interval import classifier_free_scale
from zoo.pipeline.conditioning import join
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.stage import Stage

Loop = Callable[[int], Tensor]  # steps -> latents


@dataclass(eq=False)
class StepClock:
    """Marks of every call since `clear`, one at its beginning and one after each step."""

    device: str
    calls: list[list[Any]] = field(default_factory=list)

    def start(self) -> None:
        """A call begins."""
        self.calls.append([self._mark()])

    def step(self, *_: Any) -> None:
        """A step ended; also a sampler's callback."""
        self.calls[-1].append(self._mark())

    def clear(self) -> None:
        """Forget the calls of the warm-up."""
        self.calls.clear()

    def _mark(self) -> Any:
        if not self.device.startswith("cuda"):
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def record(self) -> dict[str, Any] | None:
        """Seconds of a step, of all steps of all calls; to be called when the device is idle."""
        cuda = self.device.startswith("cuda")
        steps = [
            a.elapsed_time(b) / 1e3 if cuda else b - a for marks in self.calls for a, b in itertools.pairwise(marks)
        ]
        if not steps:
            return None
        return {
            "p50": round(quantile(steps, 0.5), 7), "p90": round(quantile(steps, 0.9), 7), "steps": len(steps),
            "by": "events on the device" if cuda else "the host's clock",
        }  # fmt: skip


@dataclass(eq=False)
class Scene:
    """What both libraries are given: start latents, conditions, the scale of guidance."""

    row: Row
    stage: Stage
    x: Tensor  # (B, C, h, w), float32
    cond: Condition
    null: Condition | None
    scale: float
    theirs: dict[str, Any]  # what diffusers' network is called with beside latents and time

    @property
    def guided(self) -> bool:
        """Whether a step evaluates guided and unguided rows."""
        return self.scale != 1.0


def scene(row: Row, pipe: Pipeline, seed: int, prompts: tuple[str, ...]) -> Scene:
    """Latents and conditions of a row, on its device."""
    stage, asked = pipe.stages[0], row.asked
    network: Any = stage.denoiser.network
    dtype, side = getattr(torch, asked.precision), stage.size // stage.autoencoder.factor
    scale = stage.denoiser.start_scale(stage.sampler.plan(stage.denoiser.schedule).start)
    eps = AddressedNoise(seed)((network.in_channels, side, side), purpose="start", samples=range(asked.batch))
    x = (scale * eps).to(asked.device)
    scales = [found for g in stage.guidance if (found := classifier_free_scale(g)) is not None]
    guidance = scales[0] if scales else 1.0
    words = [prompts[i % len(prompts)] for i in range(asked.batch)]
    givers = {name: pipe.conditioners[name] for name in stage.conditioners}
    cond = join(stage.name, stage.listens, {n: c(words).to(asked.device) for n, c in givers.items()})
    null = join(stage.name, stage.listens, {n: c.null(asked.batch).to(asked.device) for n, c in givers.items()})
    both = Condition.stack([null, cond]) if guidance != 1.0 else cond
    theirs: dict[str, Any] = {"return_dict": False}
    if both.vector is not None:
        vector, added = pooled_and_sizes(both.vector, stage.size)
        halves = vector.chunk(2) if guidance != 1.0 else (vector, vector)
        null, cond = replace(null, vector=halves[0]), replace(cond, vector=halves[1])
        theirs["added_cond_kwargs"] = {
            "text_embeds": added["text_embeds"].to(dtype), "time_ids": added["time_ids"].to(dtype)
        }  # fmt: skip
    if both.tokens is not None:
        theirs["encoder_hidden_states"] = both.tokens.to(dtype)
    return Scene(row=row, stage=stage, x=x, cond=cond, null=null if scales else None, scale=guidance, theirs=theirs)


def zoo_loop(given: Scene, stage: Stage, clock: StepClock) -> Loop:
    """The loop of a stage (the scene's, or one made fast)."""
    asked = given.row.asked
    noise = bound(AddressedNoise(0), shape=given.x.shape[1:], samples=range(asked.batch), device=asked.device)

    @torch.inference_mode()
    def loop(steps: int) -> Tensor:
        table = stage.sampler.plan(stage.denoiser.schedule, steps)
        denoise = stage.denoiser.bind(given.cond, table)
        for wrapper in stage.guidance:
            denoise = wrapper.wrap(denoise, denoiser=stage.denoiser, cond=given.cond, null=given.null, table=table)
        clock.start()
        return stage.sampler(denoise, table, given.x, noise=noise, callback=clock.step)

    return loop


def diffusers_loop(given: Scene, network: Any, clock: StepClock) -> Loop:
    """The same with diffusers' scheduler around its network, plain or compiled."""
    asked, scheduler = given.row.asked, scheduler_of(given.stage)
    x = given.x.to(getattr(torch, asked.precision))
    # Where its own pipelines keep the scheduler's timesteps: with text on the device, and else on the host.
    place = asked.device if "encoder_hidden_states" in given.theirs else None

    @torch.inference_mode()
    def loop(steps: int) -> Tensor:
        scheduler.set_timesteps(steps, device=place)
        times = scheduler.timesteps.to(asked.device)
        latents = x
        clock.start()
        for t, time in zip(scheduler.timesteps, times, strict=True):
            doubled = torch.cat([latents] * 2) if given.guided else latents
            doubled = scheduler.scale_model_input(doubled, t)
            output = network(doubled, time, **given.theirs)[0]
            if given.guided:
                unguided, guided = output.chunk(2)
                output = unguided + given.scale * (guided - unguided)
            latents = scheduler.step(output, t, latents, return_dict=False)[0]
            clock.step()
        return latents

    return loop


def zoo_decode(given: Scene, autoencoder: Any, latents: Tensor) -> Loop:
    """Latents to images; the number of steps is ignored."""

    @torch.inference_mode()
    def decode(_: int) -> Tensor:
        return autoencoder.decode(latents)

    return decode


def diffusers_decode(given: Scene, decoder: Callable[..., Any], scale: float, latents: Tensor) -> Loop:
    """The same as diffusers' pipelines do it."""

    @torch.inference_mode()
    def decode(_: int) -> Tensor:
        return decoder(latents / scale, return_dict=False)[0]

    return decode
