"""Zips of anybody's: their list of files, and the bytes of one."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO

from zoo.images.decode import LARGEST_FILE
from zoo.schema.errors import UsageError

LARGEST_LIST = 2**20  # bytes of any zip's list of files


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """A zip of images; UsageError for a damaged one, one that lists more than it holds, and two files of one name."""
    try:
        check_list(path)
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged zip may raise anything
        raise UsageError(
            f"'{path}' is not a zip file: {error}; give a folder or a zip of images", code="zip-damaged"
        ) from error
    names: set[str] = set()
    for info in archive.infolist():
        if info.filename in names:
            archive.close()
            raise UsageError(
                f"'{path}' holds two files of the name '{info.filename[:80]}'; which is meant can't be told, so rename "
                "one",
                code="file-names-repeated",
            )
        names.add(info.filename)
    return archive


def check_list(path: str | Path) -> None:
    """ValueError for a zip whose list of files is longer than all it holds: read, it takes ten times its bytes."""
    with open(path, "rb") as file:
        listed, rest = _directory(file)
    if listed > LARGEST_LIST and listed > rest:  # a file's own header and some bytes take as much as its entry
        raise ValueError(f"it lists files in {listed} bytes and holds {rest}")


def _directory(file: BinaryIO) -> tuple[int, int]:
    """The bytes of a zip's list of files, as zipfile finds it, and all others; no bytes where there is none."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_557 - 76))
    tail = file.read()
    at = len(tail) - 22
    if at < 0 or not (tail[at:].startswith(b"PK\5\6") and tail.endswith(b"\0\0")):
        at = tail.rfind(b"PK\5\6")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7" and tail[at - 76 : at - 72] == b"PK\6\6":
        listed = int.from_bytes(tail[at - 36 : at - 28], "little")
    return listed, size - listed


def read_member(archive: zipfile.ZipFile, name: str, *, where: str, limit: int = LARGEST_FILE) -> bytes:
    """The bytes of a zip's file; UsageError over `limit`, whatever size its entry claims, and where it is damaged."""
    try:
        with archive.open(name) as file:
            data = b"" if archive.getinfo(name).file_size > limit else file.read(limit + 1)
            large = archive.getinfo(name).file_size > limit or len(data) > limit
    except KeyError as error:
        raise UsageError(f"'{where}' has no file '{name}'", code="file-missing") from error
    except Exception as error:  # a damaged zip may raise anything
        raise UsageError(f"'{name}' in '{where}' can't be read: {error}", code="zip-damaged") from error
    if large:
        raise UsageError(
            f"'{name}' in '{where}' has more bytes than are read, at most {limit}; make it smaller",
            code="file-too-large",
        )
    return data
