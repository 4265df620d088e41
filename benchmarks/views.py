"""What tables are made of: a record, the machine that it names, Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MISSING = "*Not measured yet.*"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def read(name: str, results: Path) -> dict[str, Any] | None:
    """A committed record."""
    path = results / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def machine_of(record: dict[str, Any]) -> str:
    """Where a record was measured."""
    machine = record["machine"]
    threads = f", {machine['threads']} threads" if machine.get("threads") else ""
    return f"{machine['processor']}, {machine['cores']} cores{threads}, torch {record['versions'].get('torch')}"
