"""How long a suite takes here, without running it: one step of each kind of row is timed, by part, and multiplied.

Rows that differ in sampler, steps and guidance alone share a reading. Evaluations that a step cache shortens count as
whole ones, so with such rows the estimate is too high.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from zoo.bench import pipelines
from zoo.bench.pipelines import Builder, Built
from zoo.bench.profile import Profile, part_of
from zoo.bench.rows import Row, Suite
from zoo.bench.suite import random_weights

CALLS = 3  # that a reading is taken of
SHOWN = 32  # images that the judge is timed with


@dataclass(frozen=True)
class Reading:
    """Seconds of one call at one step: of one-time work, of what is around the stages, and of each stage."""

    first: float
    around: float
    stages: dict[str, float]
    evaluations: dict[str, int]

    def call(self, built: Built) -> float:
        """Seconds of one call of a row with the same networks."""
        seconds = self.around
        for stage in built.pipe.stages:
            every = stage.sampler.plan(stage.denoiser.schedule, interval=stage.interval).evaluations
            seconds += self.stages[stage.name] * every / self.evaluations[stage.name]
        return seconds


def estimate(suite: Suite, *, data: str | None = None, split: str = "test") -> dict[str, Any]:
    """`seconds` of the whole run and, by id, of its `rows`; null where nothing is measured, and why in `reasons`."""
    if not any(row.kind == "pipelines" for row in suite.rows):
        why = f"a suite of kind {suite.kind} tells no time before it runs"
        return {"seconds": None, "rows": {}, "reasons": {}, "reason": why}
    settings = suite.settings
    readings: dict[str, Reading] = {}
    builders: dict[str, Builder] = {}
    judge = _Judge(suite, data, split) if data is not None else None
    rows: dict[str, float | None] = dict.fromkeys((row.id for row in suite.rows), None)
    absent = {row.id: _unknown(row) or row.reason or pipelines.missing(row.asked.device) for row in suite.rows}
    reasons = {identity: reason for identity, reason in absent.items() if reason is not None}
    there = [row for row in suite.rows if row.id not in reasons]
    first = {row.asked.group: row.id for row in reversed(there)}  # runs twice a round
    judged: set[str] = set()
    for row in sorted(there, key=lambda row: -row.asked.batch):  # as they are judged
        asked = row.asked
        key = json.dumps([
            # Guidance alone changes what a step costs where one of the two predictions isn't needed.
            asked.model, asked.guidance in (0.0, 1.0), asked.precision, asked.batch, asked.device, asked.fast,
            asked.step_cache, asked.size,
        ], sort_keys=True)  # fmt: skip
        builder = builders.setdefault(asked.group, Builder(settings, counting=False))
        try:
            began = perf_counter()
            built = builder.build(row)
            build = perf_counter() - began
            if key not in readings:
                readings[key] = read(built)
        except Exception as error:  # the row will fail too
            reasons[row.id] = pipelines.told(error)
            continue
        call = readings[key].call(built)
        turns = max(settings.warm_up, 1) + settings.repeats * (2 if first[asked.group] == row.id else 1)
        seconds = build + readings[key].first + call * turns
        same = pipelines.same_pictures(row)
        if judge is not None and not random_weights(row.config or {}) and (same is None or same not in judged):
            seconds += judge.seconds(built, call / asked.batch)
            judged |= set() if same is None else {same}
        rows[row.id] = seconds
    known = [s for s in rows.values() if s is not None]
    return {
        "seconds": round(sum(known), 1) if known else None,
        "rows": {i: None if s is None else round(s, 2) for i, s in rows.items()},
        "reasons": reasons, "reason": None if known else "no row of it can be measured here",
    }  # fmt: skip


def _unknown(row: Row) -> str | None:
    return None if row.kind == "pipelines" else f"a row of kind {row.kind} tells no time before it runs"


def read(built: Built) -> Reading:
    """A row's pipeline at one step, timed by part after a call that warms it up."""
    profile, words = Profile(built.row.asked.device), built.words(built.row.asked.batch)
    for _ in range(1 + CALLS):
        profile.run(built.pipe, **words, steps=1)
    first, *others = profile.calls
    # The minimum is best of so few calls: other load only adds to a time.
    seconds = {name: min(call.get(name, 0.0) for call in others) for name in others[0]}
    whole = sum(seconds.values())
    stages = {stage.name: seconds.pop(part_of(stage.name)) for stage in built.pipe.stages}
    plans = {s.name: s.sampler.plan(s.denoiser.schedule, 1, interval=s.interval) for s in built.pipe.stages}
    return Reading(
        first=max(sum(first.values()) - whole, 0.0), around=sum(seconds.values()),
        stages=stages, evaluations={name: plan.evaluations for name, plan in plans.items()},
    )  # fmt: skip


class _Judge:
    """Seconds of judging: drawing the captions, looking at the images, and once at the data's."""

    def __init__(self, suite: Suite, data: str, split: str) -> None:
        import torch

        from zoo.bench.quality import Judges

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
        """Seconds of judging one row, given the seconds of each image."""
        if built.pipe.stages[0].enlarges:
            return 0.0
        size = built.row.asked.size or built.pipe.stages[-1].size
        once = 0 if size in self.sizes else self.reference
        self.sizes.add(size)
        return self.samples * (picture + self.look) + once * self.look


def written(seconds: float) -> str:
    """Seconds as readable text."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
