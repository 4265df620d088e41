"""A suite from its first row to its last: groups are interleaved, judged and written one after another.

With a time, rows that it leaves no room for are written as `not reached`, and come first when the run is resumed or a
later one is given this one's record. Before each group the record states what is being done and until when, so that
a watching process can end one that hangs and knows which rows did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from time import perf_counter, time
from typing import Any

from zoo.acceleration.device import out_of_memory
from zoo.bench import machine, measure, needs, pipelines, record
from zoo.bench.rows import Row, Suite
from zoo.schema.errors import UsageError

AGAIN = ("not reached", "failed")  # rows that a resumed run measures
Report = Callable[[str, int, int], Any]  # current work, rows done, rows of the suite
NOT_YET = "not judged yet: the run was interrupted"
NOT_REACHED = "the run's time was over before its turn"


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
    deadline: float | None = None  # of time.perf_counter, for the whole run
    ends: float | None = None  # of time.perf_counter: when the rows that run must be done, judged too
    references: dict[str, Any] = field(default_factory=dict)  # what the CPU drew, for the checks that share it

    @property
    def late(self) -> bool:
        """Whether the run's time is over."""
        return self.deadline is not None and perf_counter() >= self.deadline

    def until(self, rows: Sequence[Row]) -> float | None:
        """When rows that begin now must be done, of time.perf_counter; None without a deadline."""
        own = [row.seconds for row in rows]
        mine = None if not own or None in own else perf_counter() + sum(s for s in own if s is not None)
        known = [t for t in (mine, self.deadline) if t is not None]
        return min(known) if known else None

    def begin(self, rows: Sequence[Row]) -> None:
        """Note in the record what is about to be done."""
        self.ends = until = self.until(rows)
        self.record["run"]["doing"] = {
            "rows": [row.id for row in rows], "names": [row.asked.name for row in rows],
            "until": None if until is None else round(time() + until - perf_counter(), 2),
        }  # fmt: skip
        self.save()

    def tell(self, text: str) -> None:
        """Progress."""
        self.report(text, len({r["id"] for r in self.record["rows"]}), len(self.suite.rows))

    def save(self) -> Path:
        """Write the record."""
        self.record["run"]["wall_seconds"] = round(self.before + perf_counter() - self.began, 2)
        return record.write(self.record, self.folder)

    def peak(self, device: str, precision: str) -> str:
        """The name of the machine's measured peak, measured at first use."""
        key = f"{device}/{precision}"
        if key not in self.record["peaks"]:
            self.tell(f"peak of {key}")
            self.record["peaks"][key] = machine.peak(device, precision)
        return key


def run_suite(
    suite: Suite, *, folder: Path, data: str | None = None, split: str = "test", resume: bool = False,
    retry: bool = True, seconds: float | None = None, after: Mapping[str, Any] | None = None,
    report: Report = lambda text, done, total: None,
) -> tuple[dict[str, Any], Path]:  # fmt: skip
    """Measure every row of a suite; returns its record and the file it is in.

    Args:
        data: a folder or zip with metadata.jsonl that rows are judged by; without one quality is null.
        resume: go on with the newest record of this suite that was left unfinished here.
        retry: on resuming, measure rows that failed once more.
        seconds: no row begins, and no third round, when they are over; rows not begun are `not reached`.
        after: an earlier record, of any machine and code: rows that it didn't measure come first.
    """
    began = perf_counter()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; name a folder for the record", code="output-unwritable")
    run = Run(suite=suite, folder=folder, report=report, began=began)
    run.deadline = None if seconds is None else began + seconds
    found = record.unfinished(suite, folder) if resume else None
    run.record = record.begin(suite) if found is None else found
    if found is not None:
        run.record["run"]["resumed"] += 1
        run.before = found["run"]["wall_seconds"]
        again = AGAIN if retry else AGAIN[:1]
        run.record["rows"] = [r for r in found["rows"] if r["status"] not in again and not pending(r)]
    if data is not None and any(row.kind == "pipelines" for row in suite.rows):
        from zoo.bench.quality import Judges

        run.judges = Judges(suite.settings.quality, data=data, split=split)
    done = {row["id"].partition("-")[0] for row in run.record["rows"]}
    run.save() if found is not None else record.claim(run.record, folder)
    for group in _in_turn(suite, found if after is None else after):
        rows = [row for row in group if row.id not in done]
        if rows and run.late:
            run.record["rows"] += [record.row_of(row, "not reached", NOT_REACHED) for row in rows]
        elif rows:
            run.begin(rows)
            _group(run, rows)
        if rows:
            run.save()
    order = [row.id for row in suite.rows]
    run.record["rows"].sort(key=lambda row: order.index(row["id"].partition("-")[0]))
    whole = not any(row["status"] == "not reached" for row in run.record["rows"])
    run.record["run"] |= {"finished": record.now(), "complete": whole, "doing": None}
    return run.record, run.save()


def pending(row: Mapping[str, Any]) -> bool:
    """Whether a row of a record still has to be judged, so that a resumed run measures it again."""
    return bool(row["quality"]) and row["quality"]["reason"] == NOT_YET


def _in_turn(suite: Suite, earlier: Mapping[str, Any] | None) -> list[list[Row]]:
    """Rows that are measured together, in the suite's order; first those that an earlier record was to measure and
    didn't reach, then those it didn't measure or judge, then the others."""
    groups: dict[str, list[Row]] = {}
    for row in suite.rows:
        alone = "" if row.measured.together else row.id
        groups.setdefault(f"{row.kind}/{row.asked.group}/{alone}", []).append(row)
    known = {} if earlier is None else {r["id"].partition("-")[0]: _rank(r) for r in earlier["rows"]}
    return sorted(groups.values(), key=lambda rows: min(known.get(row.id, 1) for row in rows))


def _rank(row: Mapping[str, Any]) -> int:
    """How late a row's turn comes in a run after the one that this row is of."""
    if row["status"] == "not reached":
        return 0
    judged = not str((row["quality"] or {}).get("reason")).startswith("not judged")
    return 3 if row["status"] == "measured" and judged else 2


def _group(run: Run, rows: list[Row]) -> None:
    there = []
    for row in rows:
        reason = row.reason or pipelines.missing(row.asked.device)
        if reason is not None:
            run.record["rows"].append(record.row_of(row, "unavailable", reason))
        else:
            there.append(row)
    if there:
        module, _, function = there[0].measured.measure.partition(":")
        getattr(import_module(module), function)(run, there)


def measure_pipelines(run: Run, rows: list[Row]) -> None:
    """Rows that are whole pipelines, interleaved; then each is judged."""
    settings, builder = run.suite.settings, pipelines.Builder(run.suite.settings)
    built: dict[str, pipelines.Built] = {}
    timed: dict[str, measure.Timed] = {}
    warmed: dict[str, float] = {}

    def failed(row: Row, reason: str) -> None:
        timed.pop(row.id, None)
        run.record["rows"].append(record.row_of(row, "failed", reason))

    for row in rows:
        began = perf_counter()
        run.tell(f"warming up {row.asked.name}")
        try:
            built[row.id] = builder.build(row)
        except Exception as error:
            failed(row, pipelines.told(error))
            continue
        ready = pipelines.prepare(built[row.id])
        if isinstance(ready, str):
            failed(row, ready)
            continue
        timed[row.id], warmed[row.id] = ready, perf_counter() - began
    again = _rounds(run, {row.id: row for row in rows}, timed, failed)
    for row in again:
        # Other rows hold memory too, so a batch that fits in the warm-up may not fit later.
        ready = pipelines.prepare(built[row.id], max(timed[row.id].batch // 2, 1))
        if isinstance(ready, str):
            failed(row, ready)
            continue
        timed[row.id] = ready
        measure.rounds([ready], settings.repeats, broken=lambda _, e, row=row: failed(row, pipelines.told(e)))
    written = {row.id: _measured(run, row, built[row.id], timed[row.id]) for row in rows if row.id in timed}
    for row in again:
        if row.id in written:
            written[row.id]["notes"].append("memory ran out in a round; it was measured after the others, alone")
    for identity, out in written.items():
        out["wall_seconds"] = round(warmed[identity] + sum(timed[identity].seconds), 3)
        run.record["rows"].append(out)
    # Speed is written before images are judged, which takes longer.
    run.save()
    judged: dict[str, dict[str, Any]] = {}
    for identity in sorted(written, key=lambda i: -built[i].tried[-1]):
        _judge(run, built[identity], written[identity], judged)
        run.save()


def _rounds(
    run: Run, rows: Mapping[str, Row], timed: Mapping[str, measure.Timed], failed: Callable[[Row, str], None]
) -> list[Row]:
    """The rounds of a group and its noise; returns rows that memory ran out for."""
    if not timed:
        return []
    group, repeats = next(iter(rows.values())).asked.group, run.suite.settings.repeats
    going, again = dict(timed), []

    def broken(one: measure.Timed, error: Exception) -> None:
        del going[one.id]
        if out_of_memory(error) and one.batch > 1:
            again.append(rows[one.id])
        else:
            failed(rows[one.id], pipelines.told(error))

    run.tell(f"measuring {group}")
    baseline = measure.rounds(
        list(timed.values()), repeats, lambda n: run.tell(f"measuring {group}, round {n} of {repeats}"), broken,
        until=run.ends,
    )  # fmt: skip
    if baseline:
        run.record["noise"][group] = measure.noise(rows[next(iter(going))].asked.name, baseline)
    return again


def _measured(run: Run, row: Row, built: pipelines.Built, timed: measure.Timed) -> dict[str, Any]:
    """A row with all results of its rounds, and no quality yet."""
    out = record.row_of(row, "measured") | pipelines.describe(built, timed)
    out["speed"] = measure.speed(timed, out["run"]["evaluations"])
    out["profile"] = built.by_part(run.suite.settings.repeats)
    out["energy"] = measure.energy(timed)
    how = needs.How(precision=row.asked.precision, batch=timed.batch)
    out["memory"] = timed.memory | needs.planned(row.config or {}, size=row.asked.size, how=how)
    out["work"] = _work(run, row, built, out["speed"])
    out["notes"] = _notes(built, out)
    out["quality"] = record.quality(NOT_YET)
    return out


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


def _judge(run: Run, built: pipelines.Built, out: dict[str, Any], judged: dict[str, dict[str, Any]]) -> None:
    """Fill a row's quality: values, or a reason. `judged` holds earlier rows, by what decides their images."""
    if out["random_weights"]:
        out["quality"]["reason"] = "random weights: speed only"
        return
    from zoo.bench.quality import sheet

    if run.suite.settings.sheets:
        out["quality"] |= sheet(built, run.folder, record.path_of(run.record, run.folder).stem)
    if run.judges is None:
        out["quality"]["reason"] = "no data was given to judge by; give --data"
        return
    same = pipelines.same_pictures(built.row)
    if same is not None and same in judged:
        own = {key: out["quality"][key] for key in ("samples", "samples_seed")}
        out["quality"] |= judged[same]["quality"] | own | {"same_as": judged[same]["id"]}
        out["notes"].append(f"judged by the pictures of '{judged[same]['name']}': they differ by rounding alone")
        return
    run.tell(f"judging {built.row.asked.name}")
    began = perf_counter()
    try:
        out["quality"] |= run.judges(built, until=run.ends)
    except Exception as error:  # unknown words, NaN, out of memory
        out["quality"]["reason"] = pipelines.told(error)
    else:
        if same is not None:
            judged[same] = out
    if out["quality"]["batch"] not in (None, out["run"]["batch"]):
        out["notes"].append(
            f"judged by pictures drawn {out['quality']['batch']} at a time, since {out['run']['batch']} had no memory"
        )
    out["wall_seconds"] = round(out["wall_seconds"] + perf_counter() - began, 3)
