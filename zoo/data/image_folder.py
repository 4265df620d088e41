"""Pictures with captions in the ImageFolder convention: a folder or a zip with `metadata.jsonl`.

Each line of `metadata.jsonl` is an object with `file_name` and `text`; `split`, `name`, `keywords` and whatever
else the data has stay with the row. File names are hostile until checked: none may leave the root.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from zoo.data.dataset import PictureDataset, Row, Skipped
from zoo.data.decode import LARGEST_FILE
from zoo.errors import UsageError

METADATA = "metadata.jsonl"
# What reading a damaged zip raises, besides OSError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)


class ImageFolder(PictureDataset):
    """Pictures with captions, in a folder or a zip with metadata.jsonl.

    Args:
        path: a folder or a .zip file. size: pixels a side.
        split: keep only rows whose `split` is this, or one of several: `train+test`.
        resize: the shorter side is scaled to this before the crop; `size` if not given.
        crop, flip, flip_unless: how `augmented` crops and mirrors (see zoo/data/augment.py).
        smallest: pictures with a side below this are bad; without it small ones are scaled up.
        on_bad: `error` stops at a bad row or picture; `skip` decodes everything first and leaves those out, counted.

    Raises UsageError naming the file for a missing path, a row without `file_name` or `text`, a name that leaves
    the root, a file that is not a picture.
    """

    def __init__(
        self, *, path: str, split: str | None = None, size: int = 64, resize: int | None = None,
        crop: Literal["centre", "random"] = "centre", flip: float = 0.0, flip_unless: Sequence[str] = (),
        smallest: int | None = None, on_bad: Literal["error", "skip"] = "error",
    ) -> None:  # fmt: skip
        super().__init__(
            FolderSource(path), split=split, size=size, resize=resize, crop=crop, flip=flip, flip_unless=flip_unless,
            smallest=smallest, on_bad=on_bad,
        )  # fmt: skip


class FolderSource:
    """The rows of a `metadata.jsonl` and the bytes beside it."""

    def __init__(self, path: str) -> None:
        self.root, self.where = Path(path), path
        if not self.root.exists():
            raise UsageError(f"the data '{path}' does not exist; give a folder or a zip with {METADATA}")
        self._zip = None if self.root.is_dir() else self._open_zip()
        self.rows: list[Row] = []
        self.broken: list[Skipped] = []
        for number, row in self._lines():
            if isinstance(row, Skipped):
                self.broken.append(row)
            elif not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("file_name", "text")):
                name = str(row.get("file_name")) if isinstance(row, dict) else f"line {number}"
                sentence = f"{METADATA} line {number} of '{path}' lacks a 'file_name' or a 'text'"
                self.broken.append(Skipped(name, "missing caption", sentence))
            else:
                self.rows.append(row)

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.root)
        except (*_DAMAGE, OSError) as error:
            raise UsageError(f"'{self.root}' is not a zip file: {error}") from error

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """Each line of the metadata as what it holds, or as why it holds nothing."""
        for number, line in enumerate(self._bytes(METADATA).decode("utf-8", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                sentence = f"{METADATA} line {number} of '{self.root}' is not JSON: {error}"
                yield number, Skipped(f"line {number}", "not JSON", sentence)

    def read(self, index: int) -> bytes:
        """The bytes of a row's picture."""
        return self._bytes(self.rows[index]["file_name"])

    def _bytes(self, name: str) -> bytes:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
            raise UsageError(f"'{self.root}' names the file '{name}', which leaves its folder; mend {METADATA}")
        try:
            if self._zip is not None:
                size = self._zip.getinfo(name).file_size
            else:
                size = (self.root / name).stat().st_size
                if not (self.root / name).resolve().is_relative_to(self.root.resolve()):
                    raise UsageError(f"'{self.root}' links '{name}' to outside its folder; copy the file into it")
            if size > LARGEST_FILE:
                raise UsageError(f"'{name}' in '{self.root}' has {size} bytes; at most {LARGEST_FILE} are read")
            return self._zip.read(name) if self._zip is not None else (self.root / name).read_bytes()
        except (KeyError, FileNotFoundError) as error:
            raise UsageError(f"'{self.root}' has no file '{name}'") from error
        except (*_DAMAGE, OSError) as error:
            raise UsageError(f"'{name}' in '{self.root}' can't be read: {error}") from error

    def fingerprint(self) -> str:
        """The root's name and size; of a folder, every file's size and time too."""
        said = f"{self.root.name} {self.root.stat().st_size}"
        if self._zip is not None:
            return said
        digest = hashlib.sha256()
        for row in self.rows:
            try:
                found = (self.root / row["file_name"]).stat()
                digest.update(f"{found.st_size} {found.st_mtime_ns};".encode())
            except (OSError, ValueError):
                digest.update(b"missing;")
        return f"{said} {digest.hexdigest()[:16]}"
