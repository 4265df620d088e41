"""Records of the single benchmarks (zoo.benchmark/1, benchmarks/record.py): the hit score, generation, and the rest."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from zoo.report.fields import Fields, as_text
from zoo.report.model import Cell, Column, Fact, Record, Row
from zoo.report.suite_record import machine, provenance

_HIT = (
    ("hit", "hit score"), ("concept_at_1", "concept@1"), ("concept_at_5", "concept@5"), ("style", "style accuracy"),
)  # fmt: skip
MOST = 400  # facts of one record that are shown


def read_plain_record(record: Fields, path: Path) -> Record:
    """A run of one benchmark; what is known of it becomes rows, everything else facts."""
    name, place, values = record.text("name") or path.stem, machine(record), record.object("values")
    rows: tuple[Row, ...] = ()
    if "generated" in values.value and "ceiling_same_size" in values.value:
        rows = (_hit_score(record, name, place),)
    elif "after_loading_seconds" in values.value:
        rows = _generate(record, name, place)
    facts = list(_flat(values.value, ""))
    weights = [(f"weights {k}", f"SHA-256 {as_text(v)[:16]}…") for k, v in record.object("weights").value.items()]
    return Record(
        path=path, schema="zoo.benchmark/1", name=name, when=record.text("date") or "", place=place,
        commit=record.text("commit"), dirty=record.flag("dirty"), rows=rows, facts=tuple(facts[:MOST]),
        provenance=(*provenance(record, record.object("settings")), *weights),
    )  # fmt: skip


def _hit_score(record: Fields, name: str, place: str) -> Row:
    settings, values = record.object("settings"), record.object("values")
    found, ceiling = values.object("generated"), values.object("ceiling_same_size")
    judge, split, count = (settings.said(k) or "unknown" for k in ("evaluator", "split", "count"))
    interval = found.numbers("interval")
    stages = settings.objects("stages")
    size = stages[-1].said("size") if stages else None
    asked = {"model": settings.text("pipeline") or name, **_sampler(stages)}
    cells: dict[Column, Cell] = {}
    for key, shown in _HIT:
        terms = [f"reference {settings.said('data') or 'unknown'}, {split}"] + ([f"pictures {size} px"] if size else [])
        column = Column(
            kind="quality", key=f"{key}[{judge},{split}]@{count}", name=shown, better="higher", terms=tuple(terms)
        )
        own = interval if key == "hit" else found.object("intervals").numbers(key)
        inside = len(own) == 2
        cells[column] = Cell(
            value=found.number(key), low=own[0] if inside else None, high=own[1] if inside else None,
            floor=values.number("chance") if key == "hit" else None,
        )  # fmt: skip
    real = ceiling.number("hit")
    notes = () if real is None else (f"real pictures of the same size score {100 * real:.1f} % (hit)",)
    words = [asked.get(k, "") for k in ("model", "sampler", "steps")]
    return Row(
        identity=name, name=" ".join(w for w in words if w), protocol="hit score", place=place, asked=asked,
        cells=cells, notes=notes,
    )  # fmt: skip


def _sampler(stages: list[Fields]) -> dict[str, str]:
    """Sampler, steps and guidance of all stages, in words."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        sampler = stage.object("sampler")
        guidance = [scale for g in stage.objects("guidance") if (scale := g.said("scale")) is not None]
        for key, said in (("sampler", sampler.text("name")), ("steps", sampler.said("steps")), *(
            ("guidance", scale) for scale in guidance
        )):  # fmt: skip
            if said is not None:
                found.setdefault(key, []).append(said)
    return {key: said[0] if len(set(said)) == 1 else " + ".join(said) for key, said in found.items()}


def _generate(record: Fields, name: str, place: str) -> tuple[Row, ...]:
    settings, values = record.object("settings"), record.object("values")
    count = settings.number("count") or 1.0
    words = {"model": "model", "size": "size", "steps": "steps", "precision": "dtype"}
    asked = {k: said for k, field in words.items() if (said := settings.said(field)) is not None}
    terms = (place, f"{count:g} pictures after loading, by benchmarks/generate.py")
    rows = []
    for sampler, found in values.object("after_loading_seconds").named_objects():
        seconds = found.number("median")
        reason = None if seconds is not None else found.text("reason")
        rate = None if not seconds else count / seconds
        cells = {
            Column(kind="cost", key="images-per-second", name="images a second", better="higher", terms=terms): Cell(
                value=rate, reason=reason
            ),
            Column(
                kind="cost", key="latency-p50", name=f"seconds for {count:g}", unit="s", better="lower", terms=terms
            ): Cell(value=seconds, reason=reason),
        }
        said = {**asked, "sampler": sampler}
        label = " ".join(w for w in (said.get("model"), sampler, said.get("steps")) if w)
        noise = _spread(found.numbers("runs"))
        rows.append(
            Row(
                identity=f"{name}/{sampler}", name=label, protocol=name, place=place, asked=said, cells=cells,
                noise=noise,
            )
        )  # fmt: skip
    return tuple(rows)


def _spread(runs: tuple[float, ...]) -> float | None:
    """Half of the distance of the quartiles over the median, as suites tell it."""
    middle = statistics.median(runs) if len(runs) > 2 else 0.0
    if middle <= 0:
        return None
    low, _, high = statistics.quantiles(runs, n=4, method="inclusive")
    return (high - low) / 2 / middle


def _flat(value: Any, path: str) -> list[Fact]:
    """Every value by its path; a measured quantity is its median and how many runs it had."""
    if isinstance(value, dict):
        if "median" in value and isinstance(value.get("runs"), list):
            return [Fact(path=path, value=f"{as_text(value['median'])} (median of {len(value['runs'])})")]
        return [fact for k, v in value.items() for fact in _flat(v, f"{path} / {_words(k)}" if path else _words(k))]
    if isinstance(value, list):
        if all(not isinstance(v, (dict, list)) for v in value):
            return [Fact(path=path, value=" to ".join(map(as_text, value)) if len(value) == 2 else _listed(value))]
        return [fact for i, v in enumerate(value) for fact in _flat(v, f"{path} / {i + 1}")]
    return [] if value is None else [Fact(path=path, value=as_text(value))]


def _listed(values: list[Any]) -> str:
    return ", ".join(map(as_text, values[:16])) + (", …" if len(values) > 16 else "")


def _words(key: str) -> str:
    return key.replace("_", " ")
