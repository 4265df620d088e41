"""What every benchmark writes: one JSON record a run (`zoo.records.benchmark_record`), with where and with what.

Tables are views of these records (`benchmarks/tables.py`); no number is typed by hand.
"""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.bench.machine import code, host
from zoo.records.benchmark_record import SINGLE_RECORD
from zoo.schema.files import write_text
from zoo.schema.version import installed

RESULTS = Path(__file__).resolve().parent / "results"
ROOT = RESULTS.parent.parent


def median_of(runs: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """A measured quantity: its median and every run."""
    return {"median": round(statistics.median(runs), digits), "runs": [round(r, digits) for r in runs]}


def make(
    name: str,
    *,
    settings: Mapping[str, Any],
    values: Mapping[str, Any],
    weights: Mapping[str, str] | None = None,
    threads: int | None = None,
    packages: Sequence[str] = ("torch",),
) -> dict[str, Any]:
    """A record; `values` holds what was measured with all runs, `weights` the SHA-256 of each weight file."""
    return {
        "schema": SINGLE_RECORD,
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **{key: found for key, found in code().items() if key != "zoo"},
        "machine": {**host(), "threads": threads},
        "versions": installed(*packages),
        "weights": dict(weights or {}),
        "settings": dict(settings),
        "values": dict(values),
    }


def write(record: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write a record to `path`, or to results/NAME.json; returns the file."""
    target = RESULTS / f"{record['name']}.json" if path is None else path
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_text(target, json.dumps(record, indent=1) + "\n")
