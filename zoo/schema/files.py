"""Files that appear whole or not at all, under any number of writers, and their hashes.

A file is written beside its place under a name of its own and renamed over it, so a reader finds the old
file or a new one, and of several writers the last wins. What a killed writer left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from zoo.schema.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows, where an open file can't be removed either
    fcntl = None

LOCK = ".lock"
CACHE = "ZOO_CACHE"
PREFIX, SUFFIX, UNFINISHED = ".zoo-", ".tmp", ".unfinished"  # of a file, of a folder
FRESH = 60.0  # seconds for which an unlocked file may still be its writer's: it locks it right after making it
LARGEST_LISTING = 2**28  # bytes of a file that is read by its lines
PATIENCE = 30.0  # seconds to wait for a writer that numbers files in the same folder, and may be stopped
_tidied: set[str] = set()  # folders already tidied


@contextlib.contextmanager
def atomic(path: str | Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A binary file, to be written and read, that becomes `path` when the block ends well and vanishes otherwise.

    Args:
        path: in a folder that exists. A symbolic link there is replaced, not followed.
        durable: on the disk when the block ends, and not just in the system's memory.
    """
    place = Path(path)
    _tidy(place.parent)
    # Not the place's own name, which may be as long as a name can be.
    temporary = place.parent / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
    with named_as(place, temporary):
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        with named_as(place, temporary), os.fdopen(descriptor, "w+b") as file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        with named_as(place, temporary):
            temporary.replace(place)
        if durable:
            flush(place.parent)
    finally:
        with contextlib.suppress(OSError):  # gone: it has its place
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder that becomes `path`, which is missing or empty, when the block ends well and vanishes otherwise."""
    place = Path(path).absolute()
    _tidy(place.parent)
    temporary = place.parent / f"{PREFIX}{secrets.token_hex(8)}{UNFINISHED}"
    descriptor = None
    try:
        with named_as(Path(path), temporary):
            temporary.mkdir(parents=True)
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks
                    descriptor = os.open(temporary, os.O_RDONLY)
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield temporary
            if place.exists():
                place.rmdir()
            temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # renamed, where all went well
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def named_as(place: Path, temporary: Path) -> Iterator[None]:
    """Let an OSError of the block name `place` where it would name no file, or what is temporary on the way to it."""
    try:
        yield
    except OSError as error:
        theirs = error.filename is not None and not os.fsdecode(error.filename).startswith(str(temporary))
        if theirs or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(place)) from error


@contextlib.contextmanager
def numbering(folder: Path) -> Iterator[None]:
    """Alone among all of zoo's writers who number files in a folder, which is made where it is missing."""
    descriptor = None
    with contextlib.suppress(OSError):  # whoever writes there says what is wrong
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + PATIENCE
        while descriptor is not None and fcntl is not None and time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file so that it is the old one or the new one, whatever happens, a power cut included."""
    with atomic(path, durable=True) as file:
        file.write(data)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 as it is, whole or not at all; returns the path."""
    with atomic(path) as file:
        file.write(text.encode("utf-8"))
    return path


@contextlib.contextmanager
def open_plain(path: str | Path) -> Iterator[BufferedReader]:
    """A regular file, to be read; OSError for a pipe, which would block, and for a device, which never ends."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def read_plain(path: str | Path, limit: int) -> bytes:
    """The bytes of a regular file, at most `limit` + 1: the one byte more shows the caller that it is too large.

    OSError for a pipe or a device.
    """
    with open_plain(path) as file:
        return file.read(limit + 1)


def lines_of(path: str | Path, longest: int) -> Iterator[bytes]:
    """The whole lines of a regular file, one at a time; longer ones, and a last one that was cut off, are left out.

    OSError for a pipe or a device; what is behind `LARGEST_LISTING` bytes is left out too.
    """
    with open_plain(path) as file:
        begins, left = True, LARGEST_LISTING
        while (line := file.readline(longest)) and (left := left - len(line)) > 0:
            ends = line.endswith(b"\n")
            if begins and ends:
                yield line
            begins = ends


def cache_folder() -> Path:
    """Where zoo keeps what it can make or get again: the folder that ZOO_CACHE names, or ~/.cache/zoo."""
    home = os.environ.get(CACHE)
    return Path(home).expanduser() if home else Path.home() / ".cache" / "zoo"


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path, *, mend: str) -> Iterator[None]:
    """Lock a folder for this process; UsageError naming the process that holds it. A dead process holds nothing.

    Args:
        mend: what to do where another process holds it, for the error's sentence.
    """
    with os.fdopen(_open_lock(folder / LOCK), "r+", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read(200).strip() or "another process"
                raise UsageError(f"'{folder}' is in use by {holder}; {mend}", code="folder-in-use") from error
            except OSError:  # a file system without locks
                pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _open_lock(path: Path) -> int:
    """The lock's descriptor; UsageError for a link or anything but a plain file."""
    try:
        # A link may lead outside the folder, and a pipe would block.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise UsageError(
            f"'{path}' is no plain file and can't lock the folder; take it away", code="lock-not-a-file"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"'{path}' is no plain file and can't lock the folder; take it away", code="lock-not-a-file")
    return descriptor


def _tidy(folder: Path) -> None:
    """Remove what killed writers left in a folder, once a process; a live writer holds the lock of its file."""
    if fcntl is None or str(folder) in _tidied:
        return
    _tidied.add(str(folder))
    try:
        left = [
            e.path for e in os.scandir(folder) if e.name.startswith(PREFIX) and e.name.endswith((SUFFIX, UNFINISHED))
        ]
    except OSError:
        return
    for name in left:
        with contextlib.suppress(OSError):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if time.time() - os.fstat(descriptor).st_mtime > FRESH:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
            finally:
                os.close(descriptor)
