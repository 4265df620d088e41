"""Records of `zoo bench` (zoo.suite-record/1), as docs/benchmarks.md describes them."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import UsageError
from zoo.report.fields import Fields, as_text
from zoo.report.model import DIMENSIONS, Better, Cell, Column, Fact, Pair, Part, Record, Row

PIPELINES = "pipelines"  # the kind of suite whose rows are whole pipelines


def read_suite_record(record: Fields, path: Path) -> Record:
    """A run of a suite."""
    suite, run, code = record.object("suite"), record.object("run"), record.object("code")
    place = machine(record)
    noise = {name: group.number("relative_spread") for name, group in record.object("noise").named_objects()}
    settings = suite.object("settings")
    prompts = settings.texts("prompts")
    complete, kind = run.flag("complete"), suite.text("kind") or PIPELINES
    return Record(
        path=path, schema="zoo.suite-record/1", name=suite.text("name") or path.stem,
        when=run.text("started") or "", place=place, commit=code.text("commit"), dirty=code.flag("dirty"),
        summary=suite.text("summary") or "", complete=complete is not False,
        rows=tuple(_row(r, place, noise, prompts, kind) for r in record.objects("rows")),
        pairs=tuple(_pair(p) for p in record.objects("pairs")),
        facts=tuple(
            Fact(path=f"{where}: {name}", value=as_text(value))
            for where, peak in record.object("peaks").named_objects()
            for name, value in peak.value.items()
            if not isinstance(value, (dict, list)) and value is not None
        ),
        provenance=provenance(record, settings),
    )  # fmt: skip


def machine(record: Fields) -> str:
    """All of a machine that decides how fast something runs, in words; equal words are one place."""
    found, versions = record.object("machine"), record.object("versions")
    parts = [found.text("processor") or "unknown processor"]
    parts += [f"{n} {what}" for what in ("cores", "threads") if (n := found.said(what)) is not None]
    names: dict[str, int] = {}
    for accelerator in found.objects("accelerators"):
        limit = accelerator.number("power_limit_watts")
        name = " ".join(
            t for t in (accelerator.text("name") or "accelerator", f"{limit:g} W" if limit else "",
                        f"driver {accelerator.said('driver')}" if accelerator.said("driver") else "") if t
        )  # fmt: skip
        names[name] = names.get(name, 0) + 1
    parts += [name if count == 1 else f"{count} x {name}" for name, count in names.items()]
    if (found.number("world_size") or 1) != 1:
        parts.append(f"{found.number('world_size'):g} processes")
    shown = [f"{what} {said}" for what in ("torch", "cuda", "cudnn") if (said := versions.said(what)) is not None]
    return ", ".join(parts) + (" · " + ", ".join(shown) if shown else "")


def provenance(record: Fields, settings: Fields) -> tuple[tuple[str, str], ...]:
    """Versions and settings, flat."""
    found = [(f"version of {k}", as_text(v)) for k, v in record.object("versions").value.items() if v is not None]
    for name, value in settings.value.items():
        if isinstance(value, list):
            value = "; ".join(as_text(v) for v in value)
        if value not in (None, "") and not isinstance(value, dict):
            found.append((name.replace("_", " "), as_text(value)))
    return tuple(found)


def _row(row: Fields, place: str, noise: dict[str, float | None], prompts: tuple[str, ...], kind: str) -> Row:
    asked, run, quality = row.object("asked"), row.object("run"), row.object("quality")
    status, part = row.text("status") or "measured", asked.text("part") or "pipeline"
    values = {k: v for k, v in asked.value.items() if k in DIMENSIONS and v not in (None, {}, [])}
    identity, group = row.text("id") or "", row.text("group") or ""
    judged, kind = _quality(quality), row.text("kind") or kind  # of the row, else of the suite
    return Row(
        identity=identity, name=row.text("name") or identity or "unnamed", place=place,
        # Time of one network evaluation is no time of a pipeline: what is timed decides the table.
        protocol="suite" if kind == PIPELINES else f"{kind}, {part}",
        asked={k: as_text(v) for k, v in values.items()}, status=status, reason=row.text("reason"),
        notes=row.texts("notes"), unjudged=None if judged else quality.text("reason"),
        random_weights=bool(row.flag("random_weights")),
        cells={**judged, **_checked(row.object("check"), place), **_costs(row, place)} if status == "measured" else {},
        parts=_parts(row, run),
        timed=row.object("profile").text("of") or "",
        samples=quality.texts("samples"), sampled=_sampled(run, quality.number("samples_seed"), prompts),
        noise=noise.get(group, noise.get(f"{group} {part}")),
    )  # fmt: skip


def _quality(quality: Fields) -> dict[Column, Cell]:
    found: dict[Column, Cell] = {}
    for key, value in quality.object("values").named_objects():
        better = value.text("better")
        if better not in (None, "lower", "higher"):
            raise UsageError(f"{value.place}: better is '{better}'; it is lower or higher")
        terms = (*_reference(value.object("reference")), *_pictures(value.object("pictures")))
        column = Column(kind="quality", key=key, name=short_name(key), better=_better(better), terms=terms)
        interval = value.numbers("interval")
        found[column] = Cell(
            value=value.number("value"), reason=value.text("reason"), deviation=value.number("deviation"),
            ranges=max(value.count("seed_ranges"), 1),
            low=interval[0] if len(interval) == 2 else None, high=interval[1] if len(interval) == 2 else None,
            floor=value.object("floor").number("value"),
        )  # fmt: skip
    return found


def _checked(check: Fields, place: str) -> dict[Column, Cell]:
    """How far a row's check is from what it is held against."""
    what, largest = check.text("what"), check.number("largest")
    if what is None or largest is None:
        return {}
    terms = (place, *(f"against {against}" for against in [check.text("against")] if against))
    column = Column(kind="cost", key=what, name=f"largest difference, {what}", better="lower", terms=terms)
    return {column: Cell(value=largest)}


def short_name(key: str) -> str:
    """A metric's name, without what its key says in brackets."""
    return key.partition("[")[0].partition("@")[0] or key


def _better(text: str | None) -> Better | None:
    return "lower" if text == "lower" else "higher" if text == "higher" else None


def _reference(reference: Fields) -> tuple[str, ...]:
    name = reference.text("name")
    if name is None:
        return ()
    digits = (reference.text("pictures_sha256") or "")[:8]
    parts = [
        name,
        reference.text("split"),
        f"N={n}" if (n := reference.said("n")) else None,
        digits or None,
        f"captions {captions[:8]}" if (captions := reference.text("captions_sha256")) else None,
    ]
    return ("reference " + ", ".join(p for p in parts if p),)


def _pictures(pictures: Fields) -> tuple[str, ...]:
    size, form = pictures.said("size"), pictures.text("format")
    return tuple(t for t in (f"pictures {size} px" if size else None, form) if t)


def _costs(row: Fields, place: str) -> dict[Column, Cell]:
    speed, memory, energy, work = (row.object(name) for name in ("speed", "memory", "energy", "work"))
    latency, run = speed.object("latency_seconds"), row.object("run")
    a_second = speed.number("images_per_second")
    each = 1 / a_second if a_second else None
    peak, before = memory.number("host_peak_bytes"), memory.number("host_before_bytes")
    # The process holds other rows too, so only what a call adds to it is the row's own.
    added = None if peak is None or before is None else max(peak - before, 0.0)
    wanted = (
        ("images-per-second", "images a second", "", "higher", a_second, speed),
        ("seconds-per-image", "seconds an image", "s", "lower", each, speed),
        ("latency-p50", "latency of a batch, p50", "s", "lower", latency.number("p50"), speed),
        ("latency-p90", "latency of a batch, p90", "s", "lower", latency.number("p90"), speed),
        ("host-peak", "host memory, peak", "bytes", "lower", peak, memory),
        ("host-added", "host memory of a call", "bytes", "lower", added, memory),
        ("device-peak", "device memory, peak", "bytes", "lower", memory.number("device_peak_bytes"), memory),
        ("evaluations", "network evaluations", "", "lower", run.number("evaluations"), run),
        ("energy", "energy an image", "J", "lower", energy.number("joules_per_image"), energy),
        ("share-of-peak", "share of the machine's peak", "", "higher", work.number("share_of_peak"), work),
    )
    return {
        Column(kind="cost", key=key, name=name, unit=unit, better=_better(better), terms=(place,)): Cell(
            value=value, reason=None if value is not None else fields.text("reason")
        )
        for key, name, unit, better, value, fields in wanted
    }


def _parts(row: Fields, run: Fields) -> tuple[Part, ...]:
    """Seconds of each part where they were measured, else the network evaluations of each stage."""
    timed = [
        Part(name=name, value=value, unit="s")
        for name in row.object("profile").object("seconds").value
        if (value := row.object("profile").object("seconds").number(name)) is not None and value >= 0
    ]
    if timed:
        return tuple(timed)
    found: list[Part] = []
    for i, stage in enumerate(run.objects("stages")):
        name, every = stage.text("name") or f"stage {i}", stage.number("evaluations")
        full = stage.number("full_evaluations")
        if every is None or every < 0:
            continue
        if full is None or not 0 <= full < every:
            found.append(Part(name=name, value=every, unit=""))
        else:
            found += [Part(name=name, value=full, unit=""), Part(name=f"{name}, cached", value=every - full, unit="")]
    return tuple(found)


def _sampled(run: Fields, seed: float | None, prompts: tuple[str, ...]) -> str:
    seeds = [f"{s:g}" for s in run.numbers("seeds")]
    shown = ", ".join(seeds[:8]) + (", …" if len(seeds) > 8 else "")
    parts = [
        f"seed {seed:g}" if seed is not None else f"the run's seeds {shown}" if seeds else "",
        run.text("labels") or "",
        "; ".join(f"“{p}”" for p in prompts[:8]),
    ]
    return " · ".join(p for p in parts if p)


def _pair(pair: Fields) -> Pair:
    agreement = pair.object("agreement")
    difference, tolerance = agreement.number("largest_difference"), agreement.number("tolerance")
    said = [] if difference is None else [f"{agreement.text('of') or 'output'} within {difference:.2g}"]
    if tolerance is not None:
        said.append(f"tolerance {tolerance:.2g}")
    return Pair(
        name=pair.text("name") or "unnamed", peer=pair.text("peer") or "", what=pair.text("what") or "",
        ratio=pair.number("ratio"), ratios=pair.numbers("ratios"), agreement=", ".join(said),
        agrees=agreement.flag("agrees"), reason=pair.text("reason"),
    )  # fmt: skip
