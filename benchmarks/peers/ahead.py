"""Compilations ahead of a suite: how long each takes with an empty cache, while the cache is filled for the suite.

A cache is a folder with torch's own two in it and `compile.json`, the seconds by a row's id. A row reports both:
cold from there, beside `TORCHINDUCTOR_CACHE_DIR`, and warm from its own first call.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = "compile.json"
SCHEMA = "zoo.compile-ahead/1"


def environment(cache: Path) -> dict[str, str]:
    """The environment of every process that shares a cache."""
    place = cache.resolve()
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(place / "inductor"), "TRITON_CACHE_DIR": str(place / "triton"),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1", "TORCHINDUCTOR_AUTOGRAD_CACHE": "1",
    }  # fmt: skip


def read(cache: Path | None = None) -> dict[str, Any]:
    """By row id: `seconds`, or a `reason` where it failed; nothing where no compilation ran ahead."""
    if cache is None:
        inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        if not inductor:
            return {}
        cache = Path(inductor).parent
    try:
        found = json.loads((cache / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found["compiled"] if isinstance(found, dict) and found.get("schema") == SCHEMA else {}


def write(cache: Path, entries: Iterable[tuple[str, dict[str, Any]]]) -> Path:
    """Write each entry at once; an earlier process's times with an empty cache are kept."""
    from zoo.schema.files import write_atomically

    cache.mkdir(parents=True, exist_ok=True)
    path, compiled = cache / FILE, read(cache)
    for identity, entry in entries:
        compiled.setdefault(identity, entry)
        write_atomically(path, (json.dumps({"schema": SCHEMA, "compiled": compiled}, indent=1) + "\n").encode())
    return path
