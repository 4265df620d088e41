"""Records as they are read: strict in form, tolerant of what wasn't measured; columns that hold like values only."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.invented import records
from tests.refusals import refused
from zoo.bench.report import read_record, read_records
from zoo.bench.report.groups import groups
from zoo.schema.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = [*sorted(ROOT.glob("benchmarks/results/*.json")), *sorted(ROOT.glob("tests/bench/*.json"))]
RECORD = records()["invented-2026-11-20.json"]
HIT = "hit[emoji-evaluator@cfa563d6,test]@64"


def saved(folder: Path, value: Any, name: str = "r.json") -> Path:
    """A record in a file."""
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def changed(at: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The invented record with another value at one place."""
    made = copy.deepcopy(RECORD)
    inner: Any = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return made


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.name)
def test_committed_records_are_read(path):
    record = read_record(path)
    assert record.when
    assert record.rows or record.facts


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "benchmark-record-damaged: is no JSON"),
        ("[]", "schema-unknown: its schema is None"),
        ('{"schema": "zoo.suite-record/2"}', "schema-unknown: zoo.suite-record/2"),
        ('{"schema": ["zoo.suite-record/1"]}', "schema-unknown: no record that can be read"),
        ('{"schema": "zoo.benchmark/1", "schema": "zoo.benchmark/1"}', "benchmark-record-damaged: says 'schema' twice"),
        ('{"schema": "zoo.benchmark/1", "values": {"x": NaN}}', "benchmark-record-damaged: holds NaN"),
        ('{"schema": "zoo.suite-record/1", "rows": {}}', "benchmark-record-invalid: rows is an object, not a list"),
        (
            '{"schema": "zoo.suite-record/1", "rows": [3]}',
            "benchmark-record-invalid: rows[0] is a number, not an object",
        ),
        (
            '{"schema": "zoo.suite-record/1", "rows": [{"speed": {"images_per_second": "7"}}]}',
            "benchmark-record-invalid: is text, not a number",
        ),
        (
            '{"schema": "zoo.suite-record/1", "rows": [{"speed": {"images_per_second": 1e999}}]}',
            "benchmark-record-damaged: no finite number",
        ),
        (
            '{"schema": "zoo.suite-record/1", "rows": [{"speed": {"images_per_second": true}}]}',
            "benchmark-record-invalid: not a number",
        ),
        (
            '{"schema": "zoo.suite-record/1", "rows": [{"notes": "x"}]}',
            "benchmark-record-invalid: notes is text, not a list",
        ),
        (
            '{"schema": "zoo.suite-record/1", "suite": {"name": 3}}',
            "benchmark-record-invalid: suite.name is a number",
        ),
        ("[" * 100_000, "benchmark-record-damaged: is no JSON"),
    ],
)
def test_what_is_no_record_is_refused_with_its_file_and_place(tmp_path, text, code):
    path = saved(tmp_path, text)
    with refused(code, UsageError) as caught:
        read_record(path)
    assert "r.json" in str(caught.value)


def test_depth_is_read_or_refused(tmp_path):
    deep = {"a": 1}
    for _ in range(400):
        deep = {"a": deep}  # type: ignore[dict-item]
    path = saved(tmp_path, {"schema": "zoo.benchmark/1", "values": deep})
    assert read_record(path).facts[0].value == "1"
    path.write_text('{"schema": "zoo.benchmark/1", "values": ' + '{"a":' * 50_000 + "1" + "}" * 50_001)
    with refused("benchmark-record-damaged"):
        read_record(path)


def test_a_quality_that_is_better_sideways_is_refused(tmp_path):
    with refused("benchmark-record-invalid", naming="'sideways'"):
        read_record(saved(tmp_path, changed(("rows", 0, "quality", "values", HIT, "better"), "sideways")))


@pytest.mark.parametrize("form", [b"\xff\xfe\x00", b'"\xed\xa0\x80"'])
def test_a_file_that_is_no_text_is_refused(tmp_path, form):
    (tmp_path / "r.json").write_bytes(form)
    with refused("benchmark-record-damaged", naming="UTF-8"):
        read_record(tmp_path / "r.json")


def test_paths_without_records_are_refused(tmp_path):
    for paths, refusal in (
        ([tmp_path], "benchmark-record-missing"),
        ([tmp_path / "x"], "benchmark-record-missing"),
        ([], "benchmark-record-missing"),
    ):
        with refused(refusal):
            read_records(paths)


def test_a_record_that_is_named_twice_is_read_once(tmp_path):
    path = saved(tmp_path, RECORD)
    assert len(read_records([path, tmp_path, path])) == 1


@pytest.mark.parametrize(
    "field", ["run", "speed", "memory", "energy", "work", "quality", "asked", "notes", "name", "id"]
)
@pytest.mark.parametrize("absent", [True, False])
def test_every_field_of_a_row_may_be_null_or_missing(tmp_path, field, absent):
    made = copy.deepcopy(RECORD)
    for row in made["rows"]:
        row[field] = None
        if absent:
            del row[field]
    record = read_record(saved(tmp_path, made))
    assert len(record.rows) == len(made["rows"])
    assert groups([record])


@pytest.mark.parametrize("field", ["suite", "run", "code", "machine", "versions", "peaks", "noise", "pairs", "rows"])
def test_every_field_of_a_record_may_be_missing(tmp_path, field):
    made = {k: v for k, v in RECORD.items() if k != field}
    assert read_record(saved(tmp_path, made)).schema == "zoo.suite-record/1"


def test_a_reason_stands_where_a_value_would(tmp_path):
    record = read_record(saved(tmp_path, RECORD))
    row = record.rows[0]
    energy = next(cell for column, cell in row.cells.items() if column.key == "energy")
    assert (energy.value, energy.reason) == (None, "the driver tells no power of cpu")
    gone = next(r for r in record.rows if r.status == "unavailable")
    assert "no accelerator" in (gone.reason or "")
    assert not gone.cells


QUALITY = ("rows", 0, "quality", "values", HIT)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ((*QUALITY, "reference", "pictures_sha256"), "77aa0d3f" * 8),
        ((*QUALITY, "reference", "split"), "val"),
        ((*QUALITY, "reference", "n"), 888),
        ((*QUALITY, "pictures", "size"), 128),
        ((*QUALITY, "pictures", "format"), "JPEG"),
        ((*QUALITY, "better"), "lower"),
        (("machine", "threads"), 1),
        (("machine", "processor"), "Another"),
        (("machine", "world_size"), 2),
        (("machine", "accelerators"), [{"name": "One"}]),
        (("versions", "torch"), "2.16.0"),
    ],
)
def test_what_decides_a_value_decides_its_column(tmp_path, at, value):
    """With anything else changed no column of the one record is a column of the other, where that thing matters."""
    first = read_record(saved(tmp_path, RECORD)).rows[0].cells
    second = read_record(saved(tmp_path, changed(at, value))).rows[0].cells
    kind = "quality" if at[0] == "rows" else "cost"
    told = {c for c in first if c.kind == kind and (kind == "cost" or c.key == HIT)}
    assert told
    assert not told & set(second)
    assert {c for c in first if c not in told} <= set(second)


@pytest.mark.parametrize(
    ("at", "value"),
    [(("code", "commit"), "f" * 40), (("run", "started"), "2026-12-01T00:00:00+00:00"), ((*QUALITY, "value"), 0.5)],
)
def test_what_does_not_decide_a_value_leaves_its_column(tmp_path, at, value):
    first = read_record(saved(tmp_path, RECORD)).rows[0].cells
    assert set(first) == set(read_record(saved(tmp_path, changed(at, value))).rows[0].cells)


def test_unlike_keys_are_unlike_columns(tmp_path):
    made = copy.deepcopy(RECORD)
    values = made["rows"][0]["quality"]["values"]
    for key in ("hit[emoji-evaluator@cfa563d6,test]@65", "hit[emoji-evaluator@00000000,test]@64"):
        values[key] = values[HIT]
    names = [c.key for c in read_record(saved(tmp_path, made)).rows[0].cells if c.kind == "quality"]
    assert len(names) == len(set(names)) == 4


def test_one_machine_is_one_group_and_a_part_of_a_pipeline_is_none(tmp_path):
    made = copy.deepcopy(RECORD)
    made["suite"]["kind"] = "diffusers"
    made["rows"] = made["rows"][:2]
    made["rows"][1]["asked"]["part"] = "network"
    other = changed(("machine", "threads"), 1)
    for i, record in enumerate((RECORD, RECORD, other, made)):
        saved(tmp_path, record, f"{i}.json")
    found = groups(read_records([tmp_path]))
    assert sorted((g.protocol, g.runs) for g in found) == [
        ("diffusers, network", 1), ("diffusers, pipeline", 1), ("suite", 1), ("suite", 2),
    ]  # fmt: skip


def test_the_newest_measurement_of_a_configuration_counts(tmp_path):
    saved(tmp_path, RECORD, "a.json")
    saved(tmp_path, records()["invented-2026-11-21.json"], "b.json")
    group = groups(read_records([tmp_path]))[0]
    newest = group.newest
    assert len({e.row.identity for e in newest}) == len(newest) == 17
    assert {e.record.path.name for e in newest if e.row.asked["sampler"] == "ddim" and not e.row.random_weights} == {
        "b.json"
    }


def test_rows_are_called_by_what_tells_them_apart(tmp_path):
    group = groups([read_record(saved(tmp_path, RECORD))])[0]
    names = [group.label(e.row) for e in group.entries]
    assert "unipc 30" in names
    assert "stand-in ddim 10" in names
    assert len(set(names)) == len(names)


def test_components_with_settings_are_told_in_short(tmp_path):
    made = changed(("rows", 0, "asked", "sampler"), {"name": "ddim", "eta": 0.5, "grid": {"name": "karras"}})
    made["rows"][0]["asked"]["fast"] = {"compile": True, "graphs": False}
    asked = read_record(saved(tmp_path, made)).rows[0].asked
    assert (asked["sampler"], asked["fast"]) == ("ddim eta=0.5 grid=karras", "compile")
