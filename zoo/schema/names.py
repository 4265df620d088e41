"""The names of files that images and arrays are saved to: what zoo numbers itself never takes a name that is there.

A file that was named is replaced, as any program's output is. In a folder, and where several images are numbered after
a name, the numbers go on after those that are there; with `overwrite` they begin again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.schema.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


LONGEST, LONGEST_PART = 4096, 255  # bytes of a path, and of a name in it, on any file system in use


def check_length(name: str | Path, what: str) -> None:
    """UsageError for a name that no file system takes, which any question of a file of that name would fail on."""
    written = str(name).encode("utf-8", "surrogatepass")
    if len(written) >= LONGEST or max(map(len, re.split(rb"[/\\]", written))) > LONGEST_PART:
        raise UsageError(f"the {what} '{str(name)[:40]}…' is too long for any file's name", code="name-too-long")


def as_path(value: Any, what: str) -> Path:
    """A path of a caller's; UsageError for what is none, and for one that no file can have."""
    try:
        path = Path(value)
        name = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the {what} {str(value)!r:.80} has half of a character; mend it", code="name-not-utf-8"
        ) from error
    except TypeError as error:
        raise UsageError(
            f"the {what} is a path, and not {type(value).__name__}; give its text", code="argument-type-wrong"
        ) from error
    if b"\0" in name:
        raise UsageError(f"the name of a {what} has a NUL in it; leave it out", code="output-unwritable")
    return path


def is_utf8(text: str) -> bool:
    """Whether a text has UTF-8: no lone surrogates, as which bytes of another encoding come from a command line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_utf8(path: str | Path, what: str) -> None:
    """UsageError for a path in another encoding, where it goes to a library that takes UTF-8 alone."""
    if not is_utf8(str(path)):
        raise UsageError(f"the {what} '{path}' has a name that is not UTF-8; rename it", code="name-not-utf-8")


def targets(path: str | Path, count: int, *, grid: bool = False, overwrite: bool = False) -> list[Path]:
    """The files that `count` images would be saved to under `path`; see `Generation.save`."""
    given, path = str(path), Path(path)
    if given.endswith(("/", "\\")) or path.is_dir() or not path.suffix:
        if grid:
            return [free(path / "grid.png", overwrite=overwrite)]
        first = 0 if overwrite else _after(path, re.compile(r"(\d{4,})\.png"))
        return [path / f"{first + i:04d}.png" for i in range(count)]
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"'{path}' ends in no picture format zoo writes; use one of {', '.join(SUFFIXES)} or a folder",
            code="output-format-unknown",
        )
    if grid or count == 1:
        return [path]
    pattern = re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}")
    first = 0 if overwrite else _after(path.parent, pattern)
    return [path.with_name(f"{path.stem}-{first + i}{path.suffix}") for i in range(count)]


def array_targets(path: str | Path, *, grid: bool = False, overwrite: bool = False) -> list[Path]:
    """The files that arrays would be saved to under `path`; see `zoo.pipeline.arrays.Arrays.save`."""
    given, path = str(path), Path(path)
    if given.endswith(("/", "\\")) or path.is_dir() or not path.suffix:
        first = free(path / "samples.npy", overwrite=overwrite)
        return [first.with_suffix(f".{ending}") for ending in ("npy", "json", "png")]
    if path.suffix.lower() == ".png":
        return [path]
    if path.suffix.lower() != ".npy":
        raise UsageError(
            f"'{path}' ends in no format that arrays are written in; use .npy, .png for a picture of them, or a folder",
            code="output-format-unknown",
        )
    return [path, path.with_suffix(".json"), *([path.with_suffix(".png")] if grid else [])]


def free(path: Path, *, overwrite: bool = False) -> Path:
    """`path`, or NAME-1, NAME-2, ... after the last that is there, unless nothing is there or it may be overwritten."""
    if overwrite or not path.exists():
        return path
    after = _after(path.parent, re.compile(rf"{re.escape(path.stem)}-(\d+){re.escape(path.suffix)}"))
    return path.with_name(f"{path.stem}-{max(1, after)}{path.suffix}")


def _after(folder: Path, pattern: re.Pattern[str]) -> int:
    """The number after the highest that a file of the folder has."""
    return max((n + 1 for n in _numbers(folder, pattern)), default=0)


def _numbers(folder: Path, pattern: re.Pattern[str]) -> Iterable[int]:
    if not folder.is_dir():
        return []
    return [int(match[1]) for file in folder.iterdir() if (match := pattern.fullmatch(file.name))]
