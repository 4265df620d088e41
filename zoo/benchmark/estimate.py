"""How long a suite takes here, without running it: one step of each kind of row is timed, by part, and multiplied.

Rows that differ in sampler and steps alone share a reading. Evaluations that a step cache shortens count as whole ones,
so with such rows the estimate is too high.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from zoo.assemble import component
from zoo.benchmark import pipelines
from zoo.benchmark.pipelines import Builder, Built
from zoo.benchmark.profile import Profile, part_of
from zoo.benchmark.suite import Row, Suite, random_weights

SHOWN = 32  # pictures that the judge is timed with


@dataclass(frozen=True)
class Reading:
    """Seconds of one call at one step: of building the pipeline, of what comes once a process, a call and a stage."""

    build: float
    first: float
    around: float
    stages: dict[str, float]
    evaluations: dict[str, int]
    built: Built

    def call(self, row: Row) -> float:
        """Seconds of one of the row's calls."""
        assert row.config is not None
        seconds = self.around
        for stage, block in zip(self.built.pipe.stages, row.config["stages"], strict=True):
            sampler = component("sampler", block["sampler"])
            every = sampler.plan(stage.denoiser.schedule, interval=stage.interval).evaluations
            seconds += self.stages[stage.name] * every / self.evaluations[stage.name]
        return seconds


def estimate(suite: Suite, *, data: str | None = None, split: str = "test") -> dict[str, Any]:
    """`seconds` of the whole run; `rows` by id, null where a row won't be measured; or `reason`."""
    if suite.kind != "pipelines":
        return {"seconds": None, "rows": {}, "reason": f"a suite of kind {suite.kind} tells no time before it runs"}
    settings = suite.settings
    readings: dict[str, Reading | str] = {}
    builders: dict[str, Builder] = {}
    judge = _Judge(suite, data, split) if data is not None else None
    rows: dict[str, float | None] = dict.fromkeys((row.id for row in suite.rows), None)
    there = [row for row in suite.rows if row.reason is None and pipelines.missing(row.asked.device) is None]
    first = {row.asked.group: row.id for row in reversed(there)}  # runs twice a round
    judged: set[str] = set()
    for row in sorted(there, key=lambda row: -row.asked.batch):  # as they are judged
        asked = row.asked
        key = json.dumps([
            asked.model, asked.guidance, asked.precision, asked.batch, asked.device, asked.fast, asked.step_cache,
            asked.size,
        ], sort_keys=True)  # fmt: skip
        if key not in readings:
            builder = builders.setdefault(asked.group, Builder(settings))
            try:
                readings[key] = read(builder, row)
            except Exception as error:
                readings[key] = pipelines.told(error)
        reading = readings[key]
        if isinstance(reading, str):  # it will fail, soon
            continue
        call = reading.call(row)
        turns = max(settings.warm_up, 1) + settings.repeats * (2 if first[asked.group] == row.id else 1)
        seconds = reading.build + reading.first + call * turns
        same = pipelines.same_pictures(row)
        if judge is not None and not random_weights(row.config or {}) and (same is None or same not in judged):
            seconds += judge.seconds(reading.built, call / asked.batch)
            judged |= set() if same is None else {same}
        rows[row.id] = seconds
    known = [s for s in rows.values() if s is not None]
    return {
        "seconds": round(sum(known), 1), "rows": {i: None if s is None else round(s, 2) for i, s in rows.items()},
        "reason": None if known else "no row of it can be measured here",
    }  # fmt: skip


def read(builder: Builder, row: Row) -> Reading:
    """A row's pipeline at one step, its second call timed by part."""
    began = perf_counter()
    built = builder.build(row)
    build = perf_counter() - began
    profile, words = Profile(row.asked.device), built.words(row.asked.batch)
    for _ in range(2):
        profile.run(built.pipe, **words, steps=1)
    seconds = dict(profile.calls[1])
    stages = {stage.name: seconds.pop(part_of(stage.name)) for stage in built.pipe.stages}
    plans = {s.name: s.sampler.plan(s.denoiser.schedule, 1, interval=s.interval) for s in built.pipe.stages}
    whole = sum(profile.calls[1].values())
    return Reading(
        build=build, first=max(sum(profile.calls[0].values()) - whole, 0.0), around=sum(seconds.values()),
        stages=stages, evaluations={name: plan.evaluations for name, plan in plans.items()}, built=built,
    )  # fmt: skip


class _Judge:
    """What judging takes: drawing the captions, looking at the pictures, and once at the data's."""

    def __init__(self, suite: Suite, data: str, split: str) -> None:
        import torch

        from zoo.benchmark.quality import Judges

        self.asked, self.sizes = suite.settings.quality, set[int]()
        judges = Judges(self.asked, data=data, split=split)
        self.samples = len(judges.chosen())
        pictures = torch.zeros(SHOWN, 3, 64, 64, dtype=torch.uint8)
        for _ in range(2):
            began = perf_counter()
            judges.extractor.images(pictures)
            self.look = (perf_counter() - began) / SHOWN
        self.reference = sum(row.get("split") == split for row in judges.every.rows)

    def seconds(self, built: Built, picture: float) -> float:
        """Of judging one row, whose pictures take so long each."""
        if built.pipe.stages[0].enlarges:
            return 0.0
        size = built.row.asked.size or built.pipe.stages[-1].size
        once = 0 if size in self.sizes else self.reference
        self.sizes.add(size)
        looks = 2 if self.asked.hit else 1  # the distance and the hit score look on their own
        return self.samples * (picture + looks * self.look) + once * self.look


def written(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
