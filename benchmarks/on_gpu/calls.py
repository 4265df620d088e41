"""Several calls' records as one and smaller, to be kept: `python -m benchmarks.on_gpu.calls RECORD ... --out FOLDER`.

A call has so few minutes that one alone reaches a part of the rows. Of each row (with the other libraries it is
compared with) the call that measured most is kept, with its pairs; rows that no call reached stay as such, of trainings
only where no later call requests that model's training in another way. All calls must be of one kind of card; `calls`
in the record holds when each ran, of which code, how its phases ended and how many rows are its own. Rows carry their
call's number, and no config: its hash stays, and the suites are in the code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.on_gpu.joined import NAME
from zoo.bench import record
from zoo.schema.errors import UsageError
from zoo.schema.files import write_atomically

Rows = list[dict[str, Any]]


def together(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One record of all calls, in the order of their start; UsageError where they are not of one card or command."""
    calls = sorted(records, key=lambda r: r["run"]["started"])
    if not calls or any(call["suite"]["name"] != NAME for call in calls):
        raise UsageError(
            f"give one or more records that python -m benchmarks.on_gpu wrote, {NAME}-DATE.json",
            code="benchmark-record-invalid",
        )  # fmt: skip
    cards = {tuple(card["name"] for card in call["machine"]["accelerators"]) for call in calls}
    if len(cards) > 1:
        names = " and ".join(" + ".join(names) or "no card" for names in sorted(cards))
        raise UsageError(
            f"the calls ran on {names}; give those of one kind of card", code="benchmark-record-invalid"
        )  # fmt: skip
    chosen = _chosen(calls)
    rows: Rows = []
    for phase in dict.fromkeys(p["name"] for call in calls for p in call["phases"]):
        for number, call in enumerate(calls):
            later = [row for other in calls[number + 1 :] for row in other["rows"]]
            mine = [
                row for row in call["rows"]
                if row["phase"] == phase and chosen[_whose(row)] == number and not _elsewise(row, later)
            ]  # fmt: skip
            rows += [_slim(row) | {"call": number + 1} for row in mine]
    ids = [{row["id"] for row in rows if row["call"] == number + 1} for number in range(len(calls))]
    pairs = [
        {**pair, "call": number + 1}
        for number, call in enumerate(calls) for pair in call["pairs"] if pair["ours"] in ids[number]
    ]  # fmt: skip
    first = calls[0]
    return {
        **first,
        "suite": {**first["suite"], "summary": f"{first['suite']['summary']} {len(calls)} calls on one kind of card."},
        "run": {
            **first["run"], "finished": calls[-1]["run"]["finished"], "doing": None,
            "wall_seconds": round(sum(call["run"]["wall_seconds"] for call in calls), 2),
            "complete": not any(row["status"] == "not reached" for row in rows),
        },
        "versions": {k: v for call in reversed(calls) for k, v in call["versions"].items()},
        "peaks": {k: v for call in reversed(calls) for k, v in call["peaks"].items()},
        "noise": {k: v for call in reversed(calls) for k, v in call["noise"].items()},
        "calls": [
            {
                **{key: call["run"][key] for key in ("started", "finished", "wall_seconds")}, "code": call["code"],
                "peaks": call["peaks"], "rows": len(ids[number]),
                "phases": [{key: phase[key] for key in ("name", "seconds", "reason")} for phase in call["phases"]],
            }
            for number, call in enumerate(calls)
        ],
        "phases": _phases(calls),
        "rows": rows,
        "pairs": pairs,
    }  # fmt: skip


def _whose(row: Mapping[str, Any]) -> str:
    """The requested row that a row of the record belongs to."""
    return row["id"].partition("-")[0]


def _elsewise(row: Mapping[str, Any], later: Rows) -> bool:
    """Whether a training wasn't reached that later calls request in another way."""
    if row["kind"] != "training" or row["status"] != "not reached":
        return False
    return any(other["group"] == row["group"] and _whose(other) != _whose(row) for other in later)


def _slim(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what the code or its call has: its config, its sample sheets."""
    sheets = {"samples": [], "samples_seed": None}
    return {**row, "config": None, "quality": row["quality"] and {**row["quality"], **sheets}}


def _chosen(calls: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """For each requested row, the first of the calls that measured most of it, or else reached most."""
    worth: dict[str, list[tuple[int, int, int]]] = {}
    for number, call in enumerate(calls):
        counted: dict[str, list[str]] = {}
        for row in call["rows"]:
            counted.setdefault(_whose(row), []).append(row["status"])
        for whose, statuses in counted.items():
            reached = sum(status != "not reached" for status in statuses)
            worth.setdefault(whose, []).append((statuses.count("measured"), reached, -number))
    return {whose: -max(found)[2] for whose, found in worth.items()}


def _phases(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each phase with its seconds in all calls; the reasons for which it ended are with the calls."""
    found: dict[str, dict[str, Any]] = {}
    for phase in (phase for call in calls for phase in call["phases"]):
        known = found.setdefault(phase["name"], {**phase, "seconds": 0.0, "reason": None})
        known["seconds"] = round(known["seconds"] + phase["seconds"], 2)
    return list(found.values())


def text(whole: Mapping[str, Any]) -> str:
    """The record as JSON with a row or pair a line, so that a difference can be read and it stays small."""
    parts = []
    for key, value in whole.items():
        lines = ",\n".join(json.dumps(item) for item in value) if isinstance(value, list) else None
        parts.append(f"{json.dumps(key)}: {json.dumps(value) if lines is None else f'[{chr(10)}{lines}]'}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write the joined record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu.calls", description=__doc__)
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the joined record")
    given = parser.parse_args()
    whole = together([record.read(path) for path in given.records])
    path = record.path_of(whole, given.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text(whole).encode())
    print(f"wrote {path}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
