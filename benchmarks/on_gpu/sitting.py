"""Training for a time: each recipe from the shipped weights or an earlier call's, judged before and after.

The record is kept current from the start, and weights are written early and again at the end, so that a
killed process loses little.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.on_gpu.courses import COURSES, ROOT, Course, cards_in, made_up, shared_out, some_of, tiny
from benchmarks.on_gpu.phase import told
from benchmarks.on_gpu.scored import Scorer, sheet
from zoo.acceleration.device import out_of_memory, resolve
from zoo.assemble import component, denoiser, load_into, part
from zoo.bench import machine, measure, record
from zoo.bench.suite import Asked, Row, Settings, Suite
from zoo.checkpoints.files import read_verified
from zoo.config.cards import card_names, read_card
from zoo.schema.errors import ZooError
from zoo.schema.files import write_atomically
from zoo.schema.registry import registry
from zoo.training.engine.loop import Loop, Progress
from zoo.training.engine.recorded import WARM_UP
from zoo.training.engine.time_limit import Fitting
from zoo.training.recipe import Recipe, read_recipe
from zoo.training.run import Parts, objective_of, settings_of, write_weights

FLUSH, STEADY = 5, 6  # seconds kept for the last files; steps before the rate is measured
AGES, SAYS = 1e9, 5.0  # seconds that are not known yet; between two lines of progress
EARLY = 0.25  # share of a course after which weights are written for the first time
NEVER = 10**9
SMALLEST = 64  # samples of a batch below which it isn't halved where memory runs out
ASIDE = {"train.validate_every": NEVER, "train.save_every": NEVER, "train.sheet_every": NEVER}


@dataclass
class Watched:
    """What the loop reported: when each step ended, and the losses."""

    times: list[tuple[int, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __call__(self, p: Progress) -> None:
        self.times.append((p.step, time.monotonic()))
        self.losses.append(p.loss)

    def rate(self, batch: int) -> float | None:
        """Images a second after the first steps."""
        steady = self.times[min(STEADY, len(self.times) // 2) :]
        if len(steady) < 2:
            return None
        return batch * (steady[-1][0] - steady[0][0]) / max(steady[-1][1] - steady[0][1], 1e-9)

    def seconds(self) -> list[float]:
        """Seconds of each steady step."""
        steady = self.times[min(STEADY, len(self.times) // 2) :]
        return [later[1] - earlier[1] for earlier, later in pairwise(steady)]


@dataclass
class Sitting:
    """All courses of one process; `until` is of time.monotonic."""

    out: Path
    until: float
    device: str
    tiny: bool = False
    data: str | None = None
    start: str | None = None
    wait: Path | None = None  # a file that will say when training ends (of time.time), made at its turn

    def run(self) -> None:
        """Every course that there is time for; the others are written as not reached."""
        began = time.monotonic()
        place = resolve(self.device)
        self.device = str(place)
        self.out.mkdir(parents=True, exist_ok=True)
        work = self.out / "runs"
        if self.tiny:
            images = work / "images"
            self.data = str(made_up(images) if self.data is None else some_of(self.data, images))
        courses = (tiny(work),) if self.tiny else COURSES
        rows = {course.recipe: self._row(course) for course in courses}
        suite = Suite(
            name="on-gpu-train", kind="training", settings=Settings(),
            summary="The shipped models' recipes, for as long as there is time.",
            rows=tuple(row for row, _ in rows.values()),
        )  # fmt: skip
        self.record = record.begin(suite)
        self.record["rows"] = [
            record.row_of(row, "not reached", "the time was given to what is worth more") for row, _ in rows.values()
        ]
        self.began = began
        self._save()
        if self.data is None:
            self._all("no data was given to train with; give --data", "unavailable")
            return
        scorer = Scorer(self.data, place, tiny=self.tiny)
        starts = cards_in(self.start, work / "start")
        sheets: list[Tensor] = []

        def prepared(course: Course) -> OneCourse | None:
            row, recipe = rows[course.recipe]
            self.record["run"]["doing"] = {"rows": [row.id], "names": [recipe.name], "until": None}
            self._save()
            while True:
                one = OneCourse(self, course, row, scorer, starts, work)
                try:
                    one.prepare()
                except Exception as error:  # the next one is still trained and the record complete
                    if out_of_memory(error) and course.batch > SMALLEST:
                        course = dataclasses.replace(course, batch=course.batch // 2)
                        torch.cuda.empty_cache()
                        continue
                    self._failed(row, error)
                    return None
                return one

        first = prepared(courses[0])
        if self.wait is not None:
            self.until = time.monotonic() + told(self.wait) - time.time()
        plan = shared_out(courses, self.until - time.monotonic())
        for number, (course, _) in enumerate(plan):
            one = first if number == 0 else prepared(course)
            rest = [seconds for _, seconds in plan[number:]]
            share = (self.until - FLUSH - time.monotonic()) * rest[0] / sum(rest)
            if one is not None:
                self.record["run"]["doing"]["until"] = time.time() + share
                self._save()
                try:
                    sheets += one.run(time.monotonic() + share)
                    sheet(sheets, self.out / "sheet.png")
                except Exception as error:
                    self._failed(one.row, error)
            self.record["run"]["doing"] = None
            self._save()
        self.record["run"] |= {
            "finished": record.now(), "complete": all(r["status"] == "measured" for r in self.record["rows"])
        }  # fmt: skip
        self._save()
        shutil.rmtree(work, ignore_errors=True)

    def _row(self, course: Course) -> tuple[Row, Recipe]:
        recipe = read_recipe(ROOT / course.recipe, registry())
        low = recipe.raw["train"].get("precision", "bf16") == "bf16"
        asked = Asked(
            model=recipe.name, precision="bfloat16" if low else "float32", batch=course.batch, device=self.device,
            fast={"compile": True, "graphs": True} if self.device.startswith("cuda") else False,
        )  # fmt: skip
        return Row(asked=asked, config=None, kind="training"), recipe

    def put(self, row: dict[str, Any]) -> None:
        """Write a row in place of its earlier state."""
        rows = self.record["rows"]
        there = next((i for i, other in enumerate(rows) if other["id"] == row["id"]), None)
        if there is None:  # weights as they were, before what became of them
            rows.insert(next(i for i, other in enumerate(rows) if row["id"].startswith(other["id"])), row)
        else:
            rows[there] = row
        self._save()

    def _failed(self, row: Row, error: Exception) -> None:
        """Keep a row's earlier measurement, else record it as failed."""
        traceback.print_exc(file=sys.stdout)
        said = sentence(error)
        there = next(r for r in self.record["rows"] if r["id"] == row.id)
        if there["status"] == "measured":
            there["quality"]["reason"] = said
        else:
            self.put(record.row_of(row, "failed", said))

    def _all(self, reason: str, status: str) -> None:
        for row in self.record["rows"]:
            row |= {"status": status, "reason": reason}
        self.record["run"]["finished"] = record.now()
        self._save()

    def _save(self) -> None:
        self.record["run"]["wall_seconds"] = round(time.monotonic() - self.began, 2)
        write_atomically(self.out / "train.json", (json.dumps(self.record, indent=1) + "\n").encode())

    def peak(self) -> str | None:
        """The name of the device's measured peak; not measured on a CPU."""
        key = f"{self.device}/bfloat16"
        if self.device.startswith("cuda") and key not in self.record["peaks"]:
            self.record["peaks"][key] = machine.peak(self.device, "bfloat16", seconds=0.2)
        return key if key in self.record["peaks"] else None


@dataclass
class OneCourse:
    """One recipe: prepared, then trained until its deadline."""

    sitting: Sitting
    course: Course
    row: Row
    scorer: Scorer
    starts: Mapping[str, Path]
    work: Path

    def prepare(self) -> None:
        """Judge the weights as they were, load the data and take the first steps, which compile."""
        self.began, self.before, self.judging, self.sheets = time.monotonic(), None, 0.0, []
        self.recipe = read_recipe(ROOT / self.course.recipe, registry(), self._overrides())
        self.source = self.recipe.raw.get("init_from")
        made = self._made(self.recipe, {self.recipe.name: self.source} if self.source is not None else {})
        if self.source is not None:
            self.before, images, self.judging = self._judged(made)
            self.sheets.append(images)
            self._before(self.before, self.source)
            self._say(f"{_score(self.before)} before")
        self.memory = measure.start_memory(self.sitting.device)
        fast = ("train.graphs", "train.compile")  # what training goes on without where it fails
        for fewer in range(len(fast) + 1):
            overrides = self._overrides() | dict.fromkeys(fast[:fewer], False)
            try:
                self._start(read_recipe(ROOT / self.course.recipe, registry(), overrides))
            except Exception as error:
                if fewer == len(fast) or not self.sitting.device.startswith("cuda") or out_of_memory(error):
                    raise
                traceback.print_exc(file=sys.stdout)
                self._say(f"goes on without {fast[fewer]}: {sentence(error)}")
            else:
                break
        self.without = list(fast[:fewer])
        self._say(f"compiled, {self.objective.rows} rows")

    def _start(self, recipe: Recipe) -> None:
        parts = Parts(component=component, part=part, denoiser=denoiser, load_into=load_into)
        self.recipe = recipe
        self.objective = objective_of(recipe, parts, self.work / recipe.name, torch.device(self.sitting.device))
        self._say("data loaded")
        settings = dataclasses.replace(settings_of(recipe), seconds=AGES)
        self.loop = Loop(self.objective, settings, self.work / recipe.name, identity=recipe.identity)
        for _ in range(WARM_UP + 2):
            self.loop.train_step()
        self.loop.settle()

    def _say(self, text: str) -> None:
        print(f"{self.recipe.name}: {text}, {time.monotonic() - self.began:.0f} s", flush=True)

    def run(self, until: float) -> list[Tensor]:
        """Train until then, of time.monotonic, write weights, judge; returns the images drawn before and after."""
        recipe, loop, source, before, began = self.recipe, self.loop, self.source, self.before, self.began
        out = record.row_of(self.row, "measured")
        out["weights"] = {} if source is None else {read_card(source).name: read_card(source).sha256}
        prepared, early, said, watched = time.monotonic(), [], [0.0], Watched()
        # What follows the last step: writing the weights and judging them, which takes as long as it took before.
        after = max(1.5 * self.judging, 0.1 * (until - prepared)) + 2.0
        seconds = max(until - after - prepared, 1.0)
        settings = dataclasses.replace(settings_of(recipe), seconds=loop.seconds + seconds)
        loop.fitting = Fitting(settings)  # the time is known only now
        loop.settings = loop.fitting.begin()

        def report(p: Progress) -> None:
            watched(p)
            now = time.monotonic()
            if not early and now - prepared > EARLY * seconds:
                early.append(p.step)
                self._write(recipe, loop, {})
            if now - said[0] > SAYS:
                said[0] = now
                self._say(f"step {p.step} of {p.steps}, loss {p.loss:.4f}, {p.images_per_second:.0f} images/s")

        validation = loop.run(report)
        cards = self._write(recipe, loop, validation)
        out |= self._costs(loop, watched, self.memory)
        out["run"] = {
            "steps": loop.step, "batch": settings.batch_size, "samples_seen": loop.step * settings.batch_size,
            "seconds_preparing": round(prepared - began, 2), "seconds_training": round(loop.seconds, 2),
            "seconds_compiling": self._compiling(watched), "written_early_at": early[0] if early else None,
            "losses": {
                "first": _mean(watched.losses[:20]), "last": _mean(watched.losses[-20:]),
                "validation": dict(validation),
            },
            "started_from": None, "schedule": {
                "warmup_steps": loop.settings.warmup_steps, "decay_steps": loop.settings.decay_steps,
                "learning_rate": settings.learning_rate, "optimizer": settings.optimizer,
            },
        }  # fmt: skip
        if source is not None:
            card = read_card(source)
            earlier = recipe.name in self.starts
            out["run"]["started_from"] = {"name": card.name, "sha256": card.sha256, "earlier_call": earlier}
        out["notes"] = (
            ["fresh optimizer and a short warm-up: only the weights were taken on"] if source is not None else []
        ) + [f"{name} failed and was left out" for name in self.without]
        out["precision"] = {"requested": self.row.asked.precision}
        out["quality"] = record.quality("not judged yet: the process was ended")
        out["wall_seconds"] = round(time.monotonic() - began, 2)
        self.sitting.put(out)
        out["quality"], images, _ = self._judged(self._made(recipe, {c.stem: c for c in cards}))
        out["wall_seconds"] = round(time.monotonic() - began, 2)
        out["notes"] += _compared(before, out["quality"])
        self.sitting.put(out)
        return [*self.sheets, images]

    def _overrides(self) -> dict[str, Any]:
        recipe = read_recipe(ROOT / self.course.recipe, registry())
        found: dict[str, Any] = {
            "data.path": self.sitting.data, "train.batch_size": self.course.batch, **ASIDE, **self.course.overrides,
            **dict.fromkeys(("train.compile", "train.graphs"), self.sitting.device.startswith("cuda")),
        }  # fmt: skip
        if recipe.name in self.starts:
            found |= {"init_from": str(self.starts[recipe.name]), "init_fresh": []}
            if f"{recipe.name}-text" in self.starts and recipe.raw["objective"].get("train_conditioner"):
                found["conditioner.weights"] = str(self.starts[f"{recipe.name}-text"])
        elif recipe.name in card_names():
            found["init_from"] = recipe.name
        return found

    def _made(self, recipe: Recipe, cards: Mapping[str, Any]) -> dict[str, Any]:
        """What replaces the pipeline's own weights: the denoiser, and the tower it was trained with."""
        made = {recipe.name: cards[recipe.name]} if recipe.name in cards else {}
        if str(made.get(recipe.name)) in (*card_names(), "None"):  # what ships, with the tower that ships
            return made
        own = read_recipe(ROOT / self.course.recipe, registry()).raw.get("conditioner", {}).get("weights")
        tower = cards.get(f"{recipe.name}-text") or recipe.raw.get("conditioner", {}).get("weights")
        return {**made, **({own: tower} if own is not None and tower != own else {})}

    def _judged(self, made: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor, float]:
        began = time.monotonic()
        quality, images = self.scorer(self.scorer.config(self.course, made))
        return quality, images, time.monotonic() - began

    def _before(self, quality: dict[str, Any], source: str) -> None:
        """A row for the weights as they were."""
        row = record.row_of(self.row, "measured", part="start")
        row["quality"], row["weights"] = quality, {read_card(source).name: read_card(source).sha256}
        row["notes"] = ["the weights that training started from"]
        self.sitting.put(row)

    def _write(self, recipe: Recipe, loop: Loop, validation: Mapping[str, float]) -> list[Path]:
        """The averaged weights in shipped form with their cards, read back."""
        loop.settle()
        folder = self.sitting.out / "weights"
        cards = write_weights(recipe, loop, folder, validation, average=loop.average, name=recipe.name)
        for path in cards:
            card = read_card(str(path))
            read_verified(card.file, bytes=card.bytes, sha256=card.sha256)
        return cards

    def _compiling(self, watched: Watched) -> float | None:
        """The extra seconds of the first steps."""
        each = watched.seconds()
        if not each or len(watched.times) < 3:
            return None
        first = watched.times[0][1]
        count = min(STEADY, len(watched.times) // 2)
        took = watched.times[count][1] - first
        return round(max(took - count * statistics.median(each), 0.0), 2)

    def _costs(self, loop: Loop, watched: Watched, before: Mapping[str, Any]) -> dict[str, Any]:
        """Speed, memory and share of the peak."""
        each, rate = watched.seconds(), watched.rate(loop.settings.batch_size)
        speed = None
        if each and rate is not None:
            p50, p90 = (round(measure.quantile(each, share), 5) for share in (0.5, 0.9))
            speed = {
                "warm_up_seconds": [], "images_per_second": round(rate, 2), "evaluations_per_second": None,
                "latency_seconds": {"p50": p50, "p90": p90, "runs": []},
            }  # fmt: skip
        work: dict[str, Any] = {
            "flops_per_image": None,
            "tflops": None,
            "peak": None,
            "share_of_peak": None,
            "reason": None,
        }
        operations = _operations(loop)
        peak = self.sitting.peak()
        if operations is None:
            work["reason"] = "the operations of this objective's step can't be counted"
        elif rate is None:
            work |= {"flops_per_image": operations, "reason": "too few steps to measure their rate"}
        else:
            work |= {"flops_per_image": operations, "tflops": round(operations * rate / 1e12, 4), "peak": peak}
            if peak is None:
                work["reason"] = "the peak of a CPU isn't measured here"
            else:
                work["share_of_peak"] = round(work["tflops"] / self.sitting.record["peaks"][peak]["tflops"], 4)
        return {"speed": speed, "memory": measure.peak_memory(self.sitting.device, before), "work": work}


def _operations(loop: Loop) -> float | None:
    """Operations of a training step for one sample: those of the loss, and twice as many backward."""
    from torch.utils.flop_counter import FlopCounterMode

    count = 2
    batch = loop.shares(loop.step)[0]  # of training rows, whose images may be cropped and mirrored
    few = type(batch)(rows=batch.rows[:count], samples=batch.samples[:count], seed=batch.seed, device=batch.device)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            loop.objective.loss(loop.average.network, few)
    except Exception as error:  # an unsupported operation, a loss that needs a whole batch
        print(f"operations can't be counted: {sentence(error)}", flush=True)
        return None
    return 3.0 * counter.get_total_flops() / count


def sentence(error: Exception) -> str:
    """An error as one line."""
    said = str(error).splitlines()[0][:300] if str(error) else ""
    return said if isinstance(error, ZooError) else f"{type(error).__name__}: {said}"


def _score(quality: Mapping[str, Any]) -> str:
    values = quality["values"] or {}
    return ", ".join(f"{name} {value['value']:.3f}" for name, value in values.items()) or "not judged"


def _mean(values: list[float]) -> float | None:
    return round(statistics.fmean(values), 6) if values else None


def _compared(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """Whether the score rose or fell, with both intervals."""
    if before is None or not before["values"] or not after["values"]:
        return []
    was, now = next(iter(before["values"].values())), next(iter(after["values"].values()))
    said = [f"{v['value']:.3f} ({v['interval'][0]:.3f} to {v['interval'][1]:.3f})" for v in (was, now)]
    apart = now["interval"][0] > was["interval"][1] or now["interval"][1] < was["interval"][0]
    how = "better" if now["value"] > was["value"] else "worse" if now["value"] < was["value"] else "as before"
    sure = "" if apart or how == "as before" else ", within what chance does"
    return [f"hit score {said[0]} before and {said[1]} after: {how}{sure}"]
