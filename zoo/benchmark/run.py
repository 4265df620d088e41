"""A suite from its first row to its last: groups are interleaved, judged and written one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from zoo.benchmark import machine, measure, pipelines, record
from zoo.benchmark.suite import Row, Suite
from zoo.errors import UsageError

Report = Callable[[str, int, int], Any]  # what is going on, rows done, rows of the suite
NOT_YET = "not judged yet: the run was interrupted"


@dataclass
class Run:
    """A run of a suite: its record, and where it is written."""

    suite: Suite
    folder: Path
    judges: Any = None
    report: Report = lambda text, done, total: None
    record: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=perf_counter)
    before: float = 0.0  # seconds of the runs that this one resumes

    def tell(self, text: str) -> None:
        """Progress."""
        self.report(text, len({r["id"] for r in self.record["rows"]}), len(self.suite.rows))

    def save(self) -> Path:
        """Write what is there."""
        self.record["run"]["wall_seconds"] = round(self.before + perf_counter() - self.began, 2)
        return record.write(self.record, self.folder)

    def peak(self, device: str, precision: str) -> str:
        """The name of the machine's measured peak, measured when it is first asked for."""
        key = f"{device}/{precision}"
        if key not in self.record["peaks"]:
            self.tell(f"peak of {key}")
            self.record["peaks"][key] = machine.peak(device, precision)
        return key


def run_suite(
    suite: Suite, *, folder: Path, data: str | None = None, split: str = "test", resume: bool = False,
    report: Report = lambda text, done, total: None,
) -> tuple[dict[str, Any], Path]:  # fmt: skip
    """Measure every row of a suite; returns its record and the file it is in.

    Args:
        data: a folder or zip with metadata.jsonl that rows are judged by; without one quality is null.
        resume: go on with the newest record of this suite that was left unfinished here.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; name a folder for the record")
    run = Run(suite=suite, folder=folder, report=report)
    found = record.unfinished(suite, folder) if resume else None
    run.record = record.begin(suite) if found is None else found
    if found is not None:
        run.record["run"]["resumed"] += 1
        run.before = found["run"]["wall_seconds"]
        run.record["rows"] = [r for r in found["rows"] if r["status"] != "failed" and not _pending(r)]
    if data is not None and suite.kind == "pipelines":
        from zoo.benchmark.quality import Judges

        run.judges = Judges(suite.settings.quality, data=data, split=split)
    done = {row["id"] for row in run.record["rows"]}
    run.save()
    for _, rows in groupby(sorted(suite.rows, key=_first_of_group(suite)), key=lambda row: row.asked.group):
        group = [row for row in rows if not any(i == row.id or i.startswith(f"{row.id}-") for i in done)]
        if group:
            _group(run, group)
            run.save()
    order = [row.id for row in suite.rows]
    run.record["rows"].sort(key=lambda row: order.index(row["id"].partition("-")[0]))
    run.record["run"] |= {"finished": record.now(), "complete": True}
    return run.record, run.save()


def _pending(row: dict[str, Any]) -> bool:
    return bool(row["quality"]) and row["quality"]["reason"] == NOT_YET


def _first_of_group(suite: Suite) -> Callable[[Row], int]:
    groups = list(dict.fromkeys(row.asked.group for row in suite.rows))
    return lambda row: groups.index(row.asked.group)


def _group(run: Run, rows: list[Row]) -> None:
    there = []
    for row in rows:
        reason = row.reason or pipelines.missing(row.asked.device)
        if reason is not None:
            run.record["rows"].append(record.row_of(row, "unavailable", reason))
        else:
            there.append(row)
    if not there:
        return
    if run.suite.kind == "pipelines":
        _pipelines(run, there)
    elif run.suite.kind == "diffusers":
        from zoo.benchmark import peers

        peers.compare(run, there)
    else:
        from zoo.benchmark import metrics

        metrics.compare(run, there)


def _pipelines(run: Run, rows: list[Row]) -> None:
    settings, builder = run.suite.settings, pipelines.Builder(run.suite.settings)
    built, timed, written = {}, {}, {}
    for row in rows:
        began = perf_counter()
        run.tell(f"warming up {row.asked.name}")
        one = builder.build(row)
        ready = pipelines.prepare(one, settings.repeats)
        if isinstance(ready, str):
            run.record["rows"].append(record.row_of(row, "failed", ready))
            continue
        built[row.id], timed[row.id] = one, ready
        written[row.id] = record.row_of(row, "measured") | {"wall_seconds": perf_counter() - began}
    if not timed:
        return
    group = rows[0].asked.group
    run.tell(f"measuring {group}")
    baseline = measure.rounds(
        list(timed.values()), settings.repeats,
        lambda n: run.tell(f"measuring {group}, round {n} of {settings.repeats}"),
    )  # fmt: skip
    name = next(row.asked.name for row in rows if row.id in timed)
    run.record["noise"][group] = measure.noise(name, baseline)
    for row in rows:
        if row.id not in timed:
            continue
        one, ready, out = built[row.id], timed[row.id], written[row.id]
        out |= pipelines.describe(one, ready)
        out["speed"] = measure.speed(ready, out["run"]["evaluations"])
        out["memory"], out["energy"] = ready.memory, measure.energy(ready)
        out["work"] = _work(run, row, one, out["speed"])
        out["notes"] = _notes(one, out)
        out["wall_seconds"] = round(out["wall_seconds"] + sum(ready.seconds), 3)
        out["quality"] = {"values": {}, "reason": NOT_YET, "samples": []}
        run.record["rows"].append(out)
    # Speed is safe on the disk before pictures are judged, which takes longer.
    run.save()
    for row in rows:
        if row.id in timed:
            _judge(run, built[row.id], written[row.id])
            run.save()


def _work(run: Run, row: Row, built: pipelines.Built, speed: dict[str, Any]) -> dict[str, Any]:
    peak = run.peak(row.asked.device, row.asked.precision)
    if built.operations is None:
        return {"flops_per_image": None, "tflops": None, "peak": peak, "share_of_peak": None, "reason": built.reason}
    rate = built.operations * speed["images_per_second"] / 1e12
    return {
        "flops_per_image": built.operations, "tflops": round(rate, 5), "peak": peak,
        "share_of_peak": round(rate / run.record["peaks"][peak]["tflops"], 4), "reason": None,
    }  # fmt: skip


def _notes(built: pipelines.Built, out: dict[str, Any]) -> list[str]:
    notes = []
    if len(built.tried) > 1:
        notes.append(f"a batch of {built.tried[0]} had no memory; it ran with {built.tried[-1]}")
    if out["random_weights"]:
        notes.append("random weights: speed only")
    return notes


def _judge(run: Run, built: pipelines.Built, out: dict[str, Any]) -> None:
    if out["random_weights"]:
        out["quality"]["reason"] = "random weights: speed only"
        return
    from zoo.benchmark.quality import sheet

    out["quality"]["samples"] = sheet(built, run.folder, record.path_of(run.record, run.folder).stem)
    if run.judges is None:
        out["quality"]["reason"] = "no data was given to judge by; give --data"
        return
    run.tell(f"judging {built.row.asked.name}")
    began = perf_counter()
    try:
        out["quality"] |= run.judges(built)
    except UsageError as error:  # captions that its conditioner has no words for
        out["quality"]["reason"] = str(error)
    out["wall_seconds"] = round(out["wall_seconds"] + perf_counter() - began, 3)
