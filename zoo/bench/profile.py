"""The time of a call by part: text, each stage, decoding, and the rest.

A pipeline reports when a stage has taken its last step; conditioners and autoencoders are timed as they are called, and
their seconds taken out of the stage that they fall into. On an accelerator every reading of the clock waits for the
device, so there these calls are separate from the measured ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from torch import nn

from zoo.bench.machine import synchronise
from zoo.diffusion.types import source_of
from zoo.pipeline.pipeline import Pipeline, Progress

AROUND = ("text", "labels", "encoding", "decoding", "rest")  # parts that are no stage
MEASURED, APART = "the measured calls", "calls of their own, after the rounds"


@dataclass
class Profile:
    """Seconds of calls by part: one mapping a call, which sums to what the call took."""

    device: str
    calls: list[dict[str, float]] = field(default_factory=list)

    def run(self, pipe: Pipeline, **words: Any) -> Any:
        """As pipe(**words); a call that fails leaves nothing."""
        clock = _Clock(self.device)
        with _watched(pipe, clock):
            made = pipe(**words, callback=clock.step)
        clock.end("rest")
        self.calls.append(clock.parts)
        return made

    def record(self) -> dict[str, Any]:
        """The median of each part, as a record holds it."""
        names = list(dict.fromkeys(name for call in self.calls for name in call))
        names.sort(key=lambda name: (name in ("encoding", "decoding", "rest"), name not in ("text", "labels")))
        return {
            "seconds": {n: round(statistics.median(call.get(n, 0.0) for call in self.calls), 5) for n in names},
            "calls": len(self.calls), "of": MEASURED if in_measured_calls(self.device) else APART,
            "reason": None if self.calls else "no call of it was timed by part",
        }  # fmt: skip


def in_measured_calls(device: str) -> bool:
    """Whether reading the clock costs nothing, because there is no device to wait for."""
    return device.partition(":")[0] == "cpu"


def part_of(stage: str) -> str:
    """The name of a stage's part."""
    return f"stage {stage}" if stage in AROUND else stage


class _Clock:
    """Readings of one call: what lies between two ends of stages is the later one's, less what was timed apart."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.parts: dict[str, float] = {}
        self._mark, self._apart, self._inside = self._now(), 0.0, False

    def _now(self) -> float:
        synchronise(self.device)
        return perf_counter()

    def step(self, progress: Progress) -> None:
        """The callback of a call."""
        if progress.step == progress.steps:
            self.end(part_of(progress.stage))

    def end(self, part: str) -> None:
        """Attribute the time since the last mark to this part."""
        now = self._now()
        self._add(part, now - self._mark - self._apart)
        self._mark, self._apart = now, 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its seconds kept as the part's."""

        def call(*given: Any, **named: Any) -> Any:
            if self._inside:  # nested calls are timed once
                return function(*given, **named)
            self._inside, began = True, self._now()
            try:
                return function(*given, **named)
            finally:
                spent = self._now() - began
                self._inside = False
                self._apart += spent
                self._add(part, spent)

        return call

    def _add(self, part: str, seconds: float) -> None:
        self.parts[part] = self.parts.get(part, 0.0) + seconds


@contextmanager
def _watched(pipe: Pipeline, clock: _Clock) -> Iterator[None]:
    """A pipeline whose conditioners and autoencoders are timed; undone after a call, since rows share them."""
    wanted: list[tuple[Any, str, str]] = []
    for conditioner in pipe.conditioners.values():
        part = "text" if source_of(conditioner) == "prompts" else "labels"
        wanted += [(conditioner, "forward", part), (conditioner, "null", part)]
    for stage in pipe.stages:
        wanted += [(stage.autoencoder, "encode", "encoding"), (stage.autoencoder, "decode", "decoding")]
    kept = []
    try:
        for owner, name, part in wanted:
            # What has no network takes no time of its own.
            if isinstance(owner, nn.Module) and next(owner.parameters(), None) is not None and hasattr(owner, name):
                kept.append((owner, name, vars(owner).get(name)))
                setattr(owner, name, clock.timed(part, getattr(owner, name)))
        yield
    finally:
        for owner, name, own in reversed(kept):
            delattr(owner, name)
            if own is not None:  # a decoder that was compiled
                setattr(owner, name, own)
