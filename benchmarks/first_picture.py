"""A newcomer's first image from a fresh clone: seconds and bytes of every part of the README's first command.

Clones this checkout's commit into a new folder and runs the line there as the README has it, with pip as on a new
machine: without its configuration and with an empty cache. It downloads and fills gigabytes, all removed afterwards:

    python -m benchmarks.first_picture
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks import record

UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}  # as pip prints them
_DOWNLOADED = re.compile(r"Downloading \S+ \(([\d.]+) (bytes|kB|MB|GB)\)")
_FIRST = re.compile(r"```sh\n(.+ && zoo generate .+)\n```")
PARTS = ("venv", "activate", "install", "generate")


def parts_of(readme: str) -> list[str]:
    """The parts of the README's first command."""
    found = _FIRST.search(readme)
    if found is None:
        raise SystemExit("README.md has no command that ends in `zoo generate`")
    return found[1].split(" && ")


def environment(cache: Path) -> dict[str, str]:
    """This process's environment without what a newcomer hasn't: other packages, pip's settings, a full cache."""
    own = ("PYTHONPATH", "VIRTUAL_ENV", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_CACHE_DIR")
    kept = {k: v for k, v in os.environ.items() if k not in own}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": str(cache)}


def timed(command: Sequence[str], place: Path, environment: Mapping[str, str]) -> tuple[float, str]:
    """Seconds and output of a process."""
    begun = perf_counter()
    done = subprocess.run(command, cwd=place, env=dict(environment), text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{command} failed: {done.stderr[-2000:]}")
    return perf_counter() - begun, done.stdout


def downloaded(output: str) -> int:
    """The bytes that pip says it downloads, as far as it rounds them."""
    return round(sum(float(count) * UNITS[unit] for count, unit in _DOWNLOADED.findall(output)))


def size_of(folder: Path) -> int:
    """The bytes of a folder's files."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() or p.is_symlink())


def measure() -> dict[str, Any]:
    """Seconds of every part, and bytes that travel and stay."""
    load = os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        clone, clean = Path(folder) / "zoo", environment(Path(folder) / "cache")
        source = record.ROOT.as_uri()
        took = {"clone": timed(["git", "clone", "--quiet", source, str(clone)], Path(folder), clean)[0]}
        parts = parts_of((clone / "README.md").read_text(encoding="utf-8"))
        said = ""
        for i, name in enumerate(PARTS):
            # Every part in a shell of its own, after those that set the shell up.
            line = " && ".join([*(parts[1:2] if i > 1 else []), parts[i]])
            seconds, output = timed(["bash", "-c", line], clone, clean)
            took[name] = seconds
            said += output if name == "install" else ""
            print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        return {
            "seconds": {name: round(seconds, 2) for name, seconds in took.items()},
            "total_seconds": round(sum(took.values()), 1), "load_before": round(load, 2),
            "bytes": {
                "clone": size_of(clone / ".git" / "objects"), "downloaded": downloaded(said),
                "environment": size_of(clone / ".venv"), "image": (clone / parts[-1].split()[-1]).stat().st_size,
            },
        }  # fmt: skip


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="A newcomer's first image, from a fresh clone.")
    parser.parse_args()
    values = measure()
    parts = parts_of((record.ROOT / "README.md").read_text(encoding="utf-8"))
    print(record.write(record.make("first-picture", settings={"command": " && ".join(parts)}, values=values)))
    print(values)


if __name__ == "__main__":
    main()
