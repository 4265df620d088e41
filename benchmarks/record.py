"""What every benchmark writes: one JSON record a run, with what was measured, where and with what.

Tables are views of these records (`benchmarks/tables.py`); no number is typed by hand.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SCHEMA = "zoo.benchmark/1"
RESULTS = Path(__file__).resolve().parent / "results"
ROOT = RESULTS.parent.parent


def median_of(runs: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """A measured quantity: its median and every run."""
    return {"median": round(statistics.median(runs), digits), "runs": [round(r, digits) for r in runs]}


def commit() -> dict[str, Any]:
    """The commit of the checkout, and whether tracked files differ from it (records themselves don't count)."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!README.md")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def machine(threads: int | None = None) -> dict[str, Any]:
    """The processor, the cores this process may use, and the threads it uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        model = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"processor": model or platform.processor() or platform.machine(), "cores": cores, "threads": threads}
    return {**found, "system": platform.system()}


def versions(*packages: str) -> dict[str, str | None]:
    """Python's version and those of some packages, from their metadata: nothing is imported."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


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
        "schema": SCHEMA,
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **commit(),
        "machine": machine(threads),
        "versions": versions(*packages),
        "weights": dict(weights or {}),
        "settings": dict(settings),
        "values": dict(values),
    }


def write(record: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write a record to `path`, or to results/NAME.json; returns the file."""
    target = RESULTS / f"{record['name']}.json" if path is None else path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    return target
