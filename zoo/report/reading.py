"""Files to records: strict JSON, known schemas, pictures from inside the records' own folder and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo.report.fields import Fields
from zoo.report.model import Record
from zoo.report.plain_record import read_plain_record
from zoo.report.suite_record import read_suite_record
from zoo.schema.files import read_plain

READERS = {"zoo.suite-record/1": read_suite_record, "zoo.benchmark/1": read_plain_record}
LARGEST = 16 * 2**20  # bytes of one record
MOST_VALUES = 500_000  # of one record


def read_records(paths: Sequence[Path]) -> list[Record]:
    """The records of files, and of every *.json file of folders; the newest first."""
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.glob("*.json") if not p.name.startswith("."))
            if not found:
                raise UsageError(f"the folder '{path}' holds no *.json file; give benchmark records")
            files.update(dict.fromkeys(found))
        elif path.is_file():
            files[path] = None
        else:
            raise UsageError(f"'{path}' does not exist; give benchmark records or a folder of them")
    if not files:
        raise UsageError("no records were given; name benchmark records or a folder of them")
    unique = {path.resolve(): path for path in files}
    return sorted((read_record(p) for p in unique.values()), key=lambda r: (r.when, r.name), reverse=True)


def read_record(path: Path) -> Record:
    """One record; a UsageError names the file, and what in it is wrong."""
    if path.stat().st_size > LARGEST:
        raise UsageError(f"'{path}' has {path.stat().st_size} bytes; a record has at most {LARGEST}")
    value = _json(path)
    schema = value.get("schema") if isinstance(value, dict) else None
    reader = READERS.get(schema) if isinstance(schema, str) else None
    if reader is None:
        known = " and ".join(READERS)
        raise UsageError(f"'{path}' is no record that can be read: its schema is {schema!r:.60}, not {known}")
    try:
        return reader(Fields(value, f"'{path}'"), path)
    except RecursionError as error:
        raise UsageError(f"'{path}' is nested too deep; give a benchmark record") from error


def _json(path: Path) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) != len(found):
            twice = next(k for i, (k, _) in enumerate(found) if k in dict(found[:i]))
            raise UsageError(f"'{path}' says {twice!r:.60} twice; remove one")
        return value

    def constant(name: str) -> None:
        raise UsageError(f"'{path}' holds {name}, which is no JSON; write null and a reason")

    try:
        text = read_plain(path, LARGEST).decode("utf-8")
        # Each of these begins a value, which takes some sixty bytes and more once it is parsed.
        if sum(text.count(mark) for mark in "[{,") > MOST_VALUES:
            raise UsageError(f"'{path}' holds over {MOST_VALUES} values; give a benchmark record")
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"'{path}' can't be read ({error.strerror}); give a benchmark record") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is no UTF-8 text; give a benchmark record") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' is no JSON ({error}); give a benchmark record") from error
