"""The record of a suite's run, from its first row to its last; its form is in `zoo.records.benchmark_record`.

A record is written whole after every group of rows, by a rename: a killed run leaves those it had finished, and the
next one goes on from them.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.bench import machine
from zoo.bench.rows import Row, Suite
from zoo.bench.suite import random_weights
from zoo.records.benchmark_record import SUITE_FORM, SUITE_RECORD, filled, read_file
from zoo.schema.errors import UsageError
from zoo.schema.files import numbering, write_atomically

SCHEMA = SUITE_RECORD
MEASURED = (
    "run",
    "precision",
    "fast",
    "speed",
    "profile",
    "memory",
    "energy",
    "work",
    "quality",
    "check",
)  # null where nothing was


def now() -> str:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def begin(suite: Suite) -> dict[str, Any]:
    """The empty record of a run."""
    settings = asdict(suite.settings)
    packages = dict.fromkeys(package for row in suite.rows for package in row.measured.packages)
    return {
        "schema": SCHEMA,
        "suite": {
            "name": suite.name, "kind": suite.kind, "summary": suite.summary, "sha256": suite.sha256,
            "settings": {**settings, "order": "interleaved", "overrides": list(suite.overrides)},
        },
        "run": {
            "started": now(), "finished": None, "wall_seconds": 0.0, "complete": False, "resumed": 0, "doing": None
        },
        "code": machine.code(), "machine": machine.machine(), "versions": machine.versions(*packages),
        "peaks": {}, "noise": {}, "rows": [], "pairs": [],
    }  # fmt: skip


def row_of(
    row: Row, status: str, reason: str | None = None, *, part: str = "pipeline", library: str = "zoo"
) -> dict[str, Any]:
    """A row of the record with nothing measured in it; a comparison has several for each requested one."""
    import hashlib

    config = None if row.config is None else dict(row.config)
    text = json.dumps(config, sort_keys=True)
    return {
        "id": row.id if (part, library) == ("pipeline", "zoo") else f"{row.id}-{part}-{library}".replace(" ", "-"),
        "name": " ".join([row.asked.name, *(p for p in (part, library) if p not in ("pipeline", "zoo"))]),
        "kind": row.kind, "group": row.asked.group, "status": status, "reason": reason, "notes": [],
        "asked": {**asdict(row.asked), "library": library, "part": part}, "config": config,
        "config_sha256": None if config is None else hashlib.sha256(text.encode()).hexdigest(), "weights": {},
        "random_weights": False if config is None else random_weights(config),
        **dict.fromkeys(MEASURED), "wall_seconds": 0.0,
    }  # fmt: skip


def quality(reason: str | None) -> dict[str, Any]:
    """Quality with no value yet, and why there is none."""
    return {
        "values": {}, "reason": reason, "seed": None, "labels": None, "batch": None, "same_as": None, "samples": [],
        "samples_seed": None,
    }  # fmt: skip


def gaps(record: Mapping[str, Any]) -> list[str]:
    """What a finished record doesn't state, as sentences: speed without quality, a part without seconds, or nulls
    without a reason."""
    found = []
    for row in record["rows"]:
        name = row["name"]
        if row["status"] != "measured":
            found += [] if row["reason"] else [f"'{name}' is {row['status']} for no reason"]
            continue
        judged = row["quality"] or {}
        if not judged.get("values") and not judged.get("reason"):
            found.append(f"'{name}' has a speed and neither a quality nor a reason for none")
        # Records made before rows had a profile don't have the field.
        profile = row.get("profile", {"seconds": "not asked"}) or {}
        kind = row.get("kind", record["suite"]["kind"])
        if kind == "pipelines" and not profile.get("seconds") and not profile.get("reason"):
            found.append(f"'{name}' doesn't say where its seconds went")
        for part, value in (("memory", "host_peak_bytes"), ("energy", "joules_per_image"), ("work", "share_of_peak")):
            said = row[part] or {}
            if said and said.get(value) is None and not said.get("reason"):
                found.append(f"'{name}' has no {part} and no reason for that")
    return found


def path_of(record: Mapping[str, Any], folder: Path) -> Path:
    """The file of a run: SUITE-DATE.json."""
    date = "".join(c for c in record["run"]["started"].partition("+")[0] if c not in ":-")
    return folder / f"{record['suite']['name']}-{date}Z.json"


def write(record: Mapping[str, Any], folder: Path) -> Path:
    """Write the record, the old one or the new one whatever happens."""
    path = path_of(record, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def claim(record: dict[str, Any], folder: Path) -> Path:
    """Write a new record under a name of its own: of two runs that begin in one second, one waits for the next."""
    with numbering(folder):
        while path_of(record, folder).exists():
            time.sleep(0.1)
            record["run"]["started"] = now()
        return write(record, folder)


def read(path: Path) -> dict[str, Any]:
    """The record of a suite's run; UsageError for a file that is none."""
    return read_file(path, (SCHEMA,))


def unfinished(suite: Suite, folder: Path) -> dict[str, Any] | None:
    """The newest record that the same suite left unfinished on the same machine, by the same code."""
    begun = begin(suite)
    for path in sorted(folder.glob(f"{suite.name}-*.json"), reverse=True):
        try:
            found = read(path)
            filled(found, SUITE_FORM, str(path))
            # What was changed isn't gone on with: its name is where the record is written.
            changed = path_of(found, folder) != path or not _whole(found, suite)
        except (UsageError, LookupError, TypeError, AttributeError):
            continue
        same = all(found.get(key) == begun[key] for key in ("code", "machine", "versions"))
        if not changed and same and found["suite"].get("sha256") == suite.sha256 and not found["run"].get("complete"):
            return found
    return None


def _whole(found: Mapping[str, Any], suite: Suite) -> bool:
    """Whether a record has all that going on with it reads, of rows of this suite."""
    keys, ids = row_of(suite.rows[0], "failed").keys(), {row.id for row in suite.rows}
    run = found["run"]
    return (
        type(run["resumed"]) is int
        and type(run["wall_seconds"]) in (int, float)
        and all(row.keys() >= keys and row["id"].partition("-")[0] in ids for row in found["rows"])
        and all(row["quality"] is None or "reason" in row["quality"] for row in found["rows"])
    )
