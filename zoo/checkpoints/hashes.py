"""SHA-256 of large weight files, kept between processes: a file of 3.4 GB takes seconds to hash, and hardly changes.

A hash is kept under the file's path and holds as long as its size, times, inode and device do. All are in one small
file of the cache folder, sealed by its own hash: a torn or edited one is no more than an empty one. What is kept is
trusted as far as that folder is, so a hash that must be right (a card's) is never taken from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from zoo.schema.files import cache_folder, read_plain, sha256_of, write_text

SCHEMA = "zoo.hashes/1"
NAME = "hashes.json"
SMALLEST = 64 << 20  # bytes: a smaller file is hashed each time
MOST = 512  # files that are kept, the latest
LIMIT = 1 << 20  # bytes of the file of hashes
# Seconds for which a file may still change without its times showing it, on file systems that count seconds by twos.
FRESH = 3.0


def known_sha256(path: Path) -> str:
    """The SHA-256 of a file; of a large one that was hashed before and hasn't changed since, without reading it."""
    place = path.absolute()
    about = _about(place)
    if about[0] < SMALLEST:
        return sha256_of(place)
    kept = _read().get(str(place))
    if kept is not None and kept[:-1] == about:
        return kept[-1]
    found = sha256_of(place)
    if _about(place) == about and time.time() - max(about[1:3]) / 1e9 > FRESH:
        _keep(str(place), [*about, found])
    return found


def _about(path: Path) -> list[int]:
    """What changes with a file's content: size, times, inode and device."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _keep(path: str, entry: list[Any]) -> None:
    """Of two processes that write at once, one's entry is lost and hashed again."""
    files = {name: kept for name, kept in _read().items() if name != path}
    files = dict([*files.items(), (path, entry)][-MOST:])
    with contextlib.suppress(OSError):  # a folder that can't be written: each process hashes anew
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_text(cache_folder() / NAME, json.dumps({"schema": SCHEMA, "files": files, "seal": _seal(files)}))


def _read() -> dict[str, list[Any]]:
    """Path -> size, times, inode, device and SHA-256; nothing where the file is missing, damaged or of another kind."""
    try:
        data = read_plain(cache_folder() / NAME, LIMIT)
        raw = json.loads(data) if len(data) <= LIMIT else {}
        return raw["files"] if raw["schema"] == SCHEMA and raw["seal"] == _seal(raw["files"]) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _seal(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
