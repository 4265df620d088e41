"""Record files as the report's rows, columns and cells (`model`); a record's form is in
`zoo.records.benchmark_record`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.bench.report.model import DIMENSIONS, Cell, Column, Fact, Pair, Part, Record, Row
from zoo.records.benchmark_record import (
    GENERATE_FORM,
    HIT_FORM,
    SINGLE_FORM,
    SINGLE_RECORD,
    SUITE_FORM,
    SUITE_RECORD,
    as_text,
    filled,
    planned_peaks,
    read_file,
)  # fmt: skip
from zoo.schema.errors import UsageError

PIPELINES = "pipelines"  # the kind of suite whose rows are whole pipelines
MOST = 400  # facts of one record that are shown
_HIT = {"hit": "hit score", "concept_at_1": "concept@1", "concept_at_5": "concept@5", "style": "style accuracy"}
_COSTS = (  # key, name, unit, better, the record's block and the way in it; what is measured on the way there is added
    ("images-per-second", "images a second", "", "higher", "speed", "images_per_second"),
    ("seconds-per-image", "seconds an image", "s", "lower", "speed", "seconds_per_image"),
    ("latency-p50", "latency of a batch, p50", "s", "lower", "speed", "p50"),
    ("latency-p90", "latency of a batch, p90", "s", "lower", "speed", "p90"),
    ("host-peak", "host memory, peak", "bytes", "lower", "memory", "host_peak_bytes"),
    ("host-added", "host memory of a call", "bytes", "lower", "memory", "host_added_bytes"),
    ("host-planned", "host memory, planned", "bytes", "lower", "memory", "host_planned_bytes"),
    ("device-peak", "device memory, peak", "bytes", "lower", "memory", "device_peak_bytes"),
    ("device-planned", "device memory, planned", "bytes", "lower", "memory", "device_planned_bytes"),
    ("evaluations", "network evaluations", "", "lower", "run", "evaluations"),
    ("energy", "energy an image", "J", "lower", "energy", "joules_per_image"),
    ("share-of-peak", "share of the machine's peak", "", "higher", "work", "share_of_peak"),
)


def read_records(paths: Sequence[Path]) -> list[Record]:
    """The records of files, and of every *.json file of folders; the newest first."""
    files: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(
                f"'{path}' does not exist; give benchmark records or a folder of them", code="benchmark-record-missing"
            )
        found = sorted(p for p in path.glob("*.json") if not p.name.startswith(".")) if path.is_dir() else [path]
        if not found:
            raise UsageError(
                f"the folder '{path}' holds no *.json file; give benchmark records", code="benchmark-record-missing"
            )
        files |= {file.resolve(): file for file in found}
    if not files:
        raise UsageError(
            "no records were given; name benchmark records or a folder of them", code="benchmark-record-missing"
        )
    return sorted((read_record(p) for p in files.values()), key=lambda r: (r.when, r.name), reverse=True)


def read_record(path: Path) -> Record:
    """One record; a UsageError names the file, and what in it is wrong."""
    value, place = read_file(path), f"'{path}'"
    try:
        return (_suite if value["schema"] == SUITE_RECORD else _single)(value, path, place)
    except RecursionError as error:
        raise UsageError(
            f"'{path}' is nested too deep; give a benchmark record", code="benchmark-record-damaged"
        ) from error


def _suite(value: Mapping[str, Any], path: Path, place: str) -> Record:
    """A run of a suite."""
    record = filled(value, SUITE_FORM, place)
    suite, run, code, where = record["suite"], record["run"], record["code"], _machine(record)
    told = [(f"{name}: {key}", v) for name, peak in record["peaks"].items() for key, v in peak.items()]
    return Record(
        path=path, schema=SUITE_RECORD, name=suite["name"] or path.stem, when=run["started"] or "", place=where,
        commit=code["commit"], dirty=code["dirty"], summary=suite["summary"] or "",
        complete=run["complete"] is not False, rows=tuple(_row(row, record, where, place) for row in record["rows"]),
        pairs=tuple(map(_pair, record["pairs"])), provenance=_provenance(record, suite["settings"]),
        facts=tuple(Fact(p, as_text(v)) for p, v in told if not isinstance(v, (dict, list)) and v is not None),
    )  # fmt: skip


def _machine(record: Mapping[str, Any]) -> str:
    """The description of a machine that decides speed; equal descriptions are one place."""
    found, versions = record["machine"], record["versions"]
    parts = [found["processor"] or "unknown processor"]
    parts += [f"{found[what]} {what}" for what in ("cores", "threads") if found[what] is not None]
    names = Counter(
        " ".join([one["name"] or "accelerator", *([f"{limit:g} W"] if (limit := one["power_limit_watts"]) else []),
                  *([f"driver {one['driver']}"] if one["driver"] else [])])
        for one in found["accelerators"]
    )  # fmt: skip
    parts += [name if count == 1 else f"{count} x {name}" for name, count in names.items()]
    if (found["world_size"] or 1) != 1:
        parts.append(f"{found['world_size']:g} processes")
    shown = [f"{what} {versions[what]}" for what in ("torch", "cuda", "cudnn") if versions[what] is not None]
    return ", ".join(parts) + (" · " + ", ".join(shown) if shown else "")


def _provenance(record: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Versions and settings, flat."""
    found = [(f"version of {k}", as_text(v)) for k, v in record["versions"].items() if v is not None]
    for name, value in settings.items():
        shown = "; ".join(map(as_text, value)) if isinstance(value, list) else value
        if shown not in (None, "") and not isinstance(shown, dict):
            found.append((name.replace("_", " "), as_text(shown)))
    return tuple(found)


def _row(row: Mapping[str, Any], record: Mapping[str, Any], where: str, place: str) -> Row:
    asked, quality, group = row["asked"], row["quality"], row["group"] or ""
    status, part = row["status"] or "measured", asked["part"] or "pipeline"
    kind = row["kind"] or record["suite"]["kind"] or PIPELINES
    judged = _quality(quality, f"{place}: quality of '{row['name']}'")
    noise = record["noise"].get(group) or record["noise"].get(f"{group} {part}") or {}
    prompts = record["suite"]["settings"]["prompts"]
    return Row(
        identity=row["id"] or "", name=row["name"] or row["id"] or "unnamed", place=where,
        # The time of one network evaluation isn't a pipeline's: the kind of suite decides the table.
        protocol="suite" if kind == PIPELINES else f"{kind}, {part}",
        asked={k: as_text(v) for k, v in asked.items() if k in DIMENSIONS and v not in (None, {}, [])},
        status=status, reason=row["reason"], notes=tuple(row["notes"]),
        unjudged=None if judged else quality["reason"], random_weights=bool(row["random_weights"]),
        cells={**judged, **_checked(row["check"], where), **_costs(row, where)} if status == "measured" else {},
        parts=_parts(row), timed=row["profile"]["of"] or "", samples=tuple(quality["samples"]),
        sampled=_sampled(row["run"], quality["samples_seed"], prompts), noise=noise.get("relative_spread"),
    )  # fmt: skip


def _quality(quality: Mapping[str, Any], place: str) -> dict[Column, Cell]:
    found = {}
    for key, value in quality["values"].items():
        better, reference, pictures = value["better"], value["reference"], value["pictures"]
        if better not in (None, "lower", "higher"):
            raise UsageError(f"{place}: better is '{better}'; it is lower or higher", code="benchmark-record-invalid")
        digits, captions = (reference["pictures_sha256"] or "")[:8], (reference["captions_sha256"] or "")[:8]
        of = [reference["name"], reference["split"], f"N={reference['n']}" if reference["n"] else None, digits]
        of += [f"captions {captions}"] if captions else []
        terms = ["reference " + ", ".join(filter(None, of))] if reference["name"] is not None else []
        terms += [f"pictures {pictures['size']} px"] if pictures["size"] else []
        terms += [pictures["format"]] if pictures["format"] else []
        # A metric's name, without what its key says in brackets.
        name = key.partition("[")[0].partition("@")[0] or key
        column = Column(kind="quality", key=key, name=name, better=better, terms=tuple(terms))
        found[column] = Cell(
            value=value["value"], reason=value["reason"], deviation=value["deviation"],
            ranges=max(len(value["seed_ranges"]), 1), floor=value["floor"]["value"], **_ends(value["interval"]),
        )  # fmt: skip
    return found


def _ends(interval: Sequence[float]) -> dict[str, Any]:
    return dict(zip(("low", "high"), interval, strict=True)) if len(interval) == 2 else {}


def _checked(check: Mapping[str, Any], where: str) -> dict[Column, Cell]:
    """The distance of a row's check from its reference."""
    what, against = check["what"], check["against"]
    if what is None or check["largest"] is None:
        return {}
    terms = (where, f"against {against}") if against else (where,)
    column = Column(kind="cost", key=what, name=f"largest difference, {what}", better="lower", terms=terms)
    return {column: Cell(value=check["largest"])}


def _costs(row: Mapping[str, Any], where: str) -> dict[Column, Cell]:
    speed, memory = row["speed"], row["memory"]
    rate, peak, before = speed["images_per_second"], memory["host_peak_bytes"], memory["host_before_bytes"]
    # The process holds other rows too, so only what a call adds to it is the row's own.
    added = None if peak is None or before is None else max(peak - before, 0.0)
    planned = dict(zip(("host_planned_bytes", "device_planned_bytes"), planned_peaks(memory), strict=True))
    blocks = {
        **{name: row[name] for name in ("run", "energy", "work")},
        "memory": {**memory, "host_added_bytes": added, **planned},
        "speed": {**speed, **speed["latency_seconds"], "seconds_per_image": 1 / rate if rate else None},
    }  # fmt: skip
    cells = {}
    for key, name, unit, better, block, field in _COSTS:
        value = blocks[block][field]
        column = Column(kind="cost", key=key, name=name, unit=unit, better=better, terms=(where,))  # type: ignore[arg-type]
        cells[column] = Cell(value=value, reason=None if value is not None else blocks[block]["reason"])
    return cells


def _parts(row: Mapping[str, Any]) -> tuple[Part, ...]:
    """Seconds of each part where they were measured, else the network evaluations of each stage."""
    seconds = row["profile"]["seconds"]
    timed = [Part(name, value, "s") for name, value in seconds.items() if value is not None and value >= 0]
    if timed:
        return tuple(timed)
    found: list[Part] = []
    for i, stage in enumerate(row["run"]["stages"]):
        name, every, full = stage["name"] or f"stage {i}", stage["evaluations"], stage["full_evaluations"]
        if every is None or every < 0:
            continue
        kept = every if full is None or not 0 <= full < every else full
        found += [Part(name, kept, ""), *([Part(f"{name}, cached", every - kept, "")] if kept < every else [])]
    return tuple(found)


def _sampled(run: Mapping[str, Any], seed: float | None, prompts: Sequence[str]) -> str:
    seeds = [f"{s:g}" for s in run["seeds"]]
    shown = ", ".join(seeds[:8]) + (", …" if len(seeds) > 8 else "")
    drawn = f"seed {seed:g}" if seed is not None else f"the run's seeds {shown}" if seeds else ""
    return " · ".join(filter(None, [drawn, run["labels"], "; ".join(f"“{p}”" for p in prompts[:8])]))


def _pair(pair: Mapping[str, Any]) -> Pair:
    agreement = pair["agreement"]
    difference, tolerance = agreement["largest_difference"], agreement["tolerance"]
    told = [] if difference is None else [f"{agreement['of'] or 'output'} within {difference:.2g}"]
    told += [] if tolerance is None else [f"tolerance {tolerance:.2g}"]
    return Pair(
        name=pair["name"] or "unnamed", peer=pair["peer"] or "", what=pair["what"] or "", ratio=pair["ratio"],
        ratios=tuple(pair["ratios"]), agreement=", ".join(told), agrees=agreement["agrees"], reason=pair["reason"],
    )  # fmt: skip


# -- single benchmarks


def _single(value: Mapping[str, Any], path: Path, place: str) -> Record:
    """A run of one benchmark; what is known of it becomes rows, everything else facts."""
    record = filled(value, SINGLE_FORM, place)
    name, where, values = record["name"] or path.stem, _machine(record), record["values"]
    rows: tuple[Row, ...] = ()
    if "generated" in values and "ceiling_same_size" in values:
        rows = (_hit_score(filled(record, HIT_FORM, place), name, where),)
    elif "after_loading_seconds" in values:
        rows = tuple(_generate(filled(record, GENERATE_FORM, place), name, where))
    weights = [(f"weights {k}", f"SHA-256 {as_text(v)[:16]}…") for k, v in record["weights"].items()]
    return Record(
        path=path, schema=SINGLE_RECORD, name=name, when=record["date"] or "", place=where, commit=record["commit"],
        dirty=record["dirty"], rows=rows, facts=tuple(_flat(values, "")[:MOST]),
        provenance=(*_provenance(record, record["settings"]), *weights),
    )  # fmt: skip


def _hit_score(record: Mapping[str, Any], name: str, where: str) -> Row:
    settings, values = record["settings"], record["values"]
    found, stages, real = values["generated"], settings["stages"], values["ceiling_same_size"]["hit"]
    judge, split, count, data = (settings[k] or "unknown" for k in ("evaluator", "split", "count", "data"))
    size = stages[-1]["size"] if stages else None
    terms = (f"reference {data}, {split}", *([f"pictures {size} px"] if size else []))
    # Sampler, steps and guidance of all stages, in words.
    told = {
        "sampler": [stage["sampler"]["name"] for stage in stages],
        "steps": [stage["sampler"]["steps"] for stage in stages],
        "guidance": [guidance["scale"] for stage in stages for guidance in stage["guidance"]],
    }
    asked = {"model": settings["pipeline"] or name}
    for key, each in told.items():
        known = [word for word in each if word is not None]
        asked |= {key: known[0] if len(set(known)) == 1 else " + ".join(known)} if known else {}
    cells = {}
    for key, shown in _HIT.items():
        own = f"{key}[{judge},{split}]@{count}"
        ends = _ends(found["interval"] if key == "hit" else found["intervals"][key])
        floor = values["chance"] if key == "hit" else None
        column = Column(kind="quality", key=own, name=shown, better="higher", terms=terms)
        cells[column] = Cell(value=found[key], floor=floor, **ends)
    return Row(
        identity=name, name=" ".join(asked[k] for k in ("model", "sampler", "steps") if k in asked),
        protocol="hit score", place=where, asked=asked, cells=cells,
        notes=() if real is None else (f"real pictures of the same size score {100 * real:.1f} % (hit)",),
    )  # fmt: skip


def _generate(record: Mapping[str, Any], name: str, where: str) -> Iterable[Row]:
    settings, count = record["settings"], record["settings"]["count"] or 1.0
    words = {"model": "model", "size": "size", "steps": "steps", "precision": "dtype"}
    asked = {k: settings[field] for k, field in words.items() if settings[field] is not None}
    terms = (where, f"{count:g} pictures after loading, by benchmarks/generate.py")
    rate = Column(kind="cost", key="images-per-second", name="images a second", better="higher", terms=terms)
    wait = Column(kind="cost", key="latency-p50", name=f"seconds for {count:g}", unit="s", better="lower", terms=terms)
    for sampler, found in record["values"]["after_loading_seconds"].items():
        seconds = found["median"]
        reason = None if seconds is not None else found["reason"]
        yield Row(
            identity=f"{name}/{sampler}", protocol=name, place=where, asked={**asked, "sampler": sampler},
            name=" ".join(filter(None, (asked.get("model"), sampler, asked.get("steps")))),
            cells={rate: Cell(value=count / seconds if seconds else None, reason=reason),
                   wait: Cell(value=seconds, reason=reason)},
            noise=_spread(found["runs"]),
        )  # fmt: skip


def _spread(runs: Sequence[float]) -> float | None:
    """Half of the distance of the quartiles over the median, as suites define it."""
    middle = statistics.median(runs) if len(runs) > 2 else 0.0
    if middle <= 0:
        return None
    low, _, high = statistics.quantiles(runs, n=4, method="inclusive")
    return (high - low) / 2 / middle


def _flat(value: Any, path: str) -> list[Fact]:
    """Every value by its path; a measured quantity is its median and how many runs it had."""
    if isinstance(value, dict):
        if "median" in value and isinstance(value.get("runs"), list):
            return [Fact(path, f"{as_text(value['median'])} (median of {len(value['runs'])})")]
        named = [(f"{path} / {k}" if path else k, v) for k, v in value.items()]
        return [fact for inner, v in named for fact in _flat(v, inner.replace("_", " "))]
    if isinstance(value, list):
        if any(isinstance(v, (dict, list)) for v in value):
            return [fact for i, v in enumerate(value) for fact in _flat(v, f"{path} / {i + 1}")]
        shown = ", ".join(map(as_text, value[:16])) + (", …" if len(value) > 16 else "")
        return [Fact(path, " to ".join(map(as_text, value)) if len(value) == 2 else shown)]
    return [] if value is None else [Fact(path, as_text(value))]
