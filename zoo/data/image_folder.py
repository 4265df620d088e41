"""Images with captions in the ImageFolder convention: a folder or a zip with `metadata.jsonl`; or COCO's folder.

Each line of `metadata.jsonl` is an object with `file_name` and `text`; `split`, `name`, `keywords` and whatever
else the data has stay with the row. Where there is none, `metadata.csv` is read, whose first line names the columns.
File names are hostile until checked: none may leave the root.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from zoo.data import coco
from zoo.data.dataset import PictureDataset, Row, Skipped, trouble_of
from zoo.images.decode import LARGEST_FILE, read_file
from zoo.images.zips import open_zip, read_member
from zoo.schema import strict_json
from zoo.schema.errors import UsageError

METADATA = "metadata.jsonl"
TABLE = "metadata.csv"  # what datasets of the Hugging Face hub have as well
LONGEST_LINE = 2**20  # bytes of a row's line: as JSON it is parsed into some fifty times as much memory
MOST_VALUES = 20_000  # in a row: commas and brackets of its line, each of which may become an object
MOST_BROKEN, MOST_EMPTY = 10_000, 100_000  # lines that are no row: 25 kB of a zip unfold to millions of them
# What reading a damaged zip raises, besides OSError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)


class ImageFolder(PictureDataset):
    """Images with captions, in a folder or a zip with metadata.jsonl.

    Args:
        path: a folder or a .zip file. size: pixels a side.
        split: keep only rows whose `split` is this, or one of several: `train+test`.
        resize: the shorter side is scaled to this before the crop; `size` if not given.
        crop, flip, flip_unless: how `augmented` crops and mirrors (see zoo/data/augmentation.py).
        smallest: images with a side below this are bad; without it small ones are scaled up.
        on_bad: `error` stops at a bad row or image; `skip` decodes everything first and leaves those out, counted.

    Raises UsageError naming the file for a missing path, a row without `file_name` or `text`, a name that leaves
    the root, a file that is not an image.
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


def lines_of(file: IO[bytes], where: str) -> Iterator[bytes | None]:
    """The lines of a text file in UTF-8, a mark of its byte order left out; None for one of over `LONGEST_LINE` bytes.

    No more is held than a line. UsageError for UTF-16, for more than `LARGEST_FILE` bytes, and where a zip is damaged.
    """
    read = 0
    try:
        while line := file.readline(LONGEST_LINE + 1):
            if read == 0 and (encoding := _encoding(line)) is not None:
                raise UsageError(f"{where} is {encoding}; save it as UTF-8", code="metadata-unreadable")
            line = line.removeprefix(codecs.BOM_UTF8) if read == 0 else line
            read += len(line)
            if long := len(line) > LONGEST_LINE and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n") and read <= LARGEST_FILE:
                    line = file.readline(LONGEST_LINE)
                    read += len(line)
            if read > LARGEST_FILE:
                raise UsageError(
                    f"{where} has more bytes than are read, at most {LARGEST_FILE}; split the data",
                    code="metadata-too-large",
                )
            yield None if long else line
    except (*_DAMAGE, OSError) as error:
        raise UsageError(f"{where} can't be read: {error}", code="metadata-unreadable") from error


def _encoding(first: bytes) -> str | None:
    """The encoding that a first line begins in, where that isn't UTF-8: found by its mark, or by its zeros."""
    for mark, name in ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
                       (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16")):  # fmt: skip
        if first.startswith(mark):
            return name
    return {2: "UTF-16", 3: "UTF-32"}.get(first[:4].count(0))  # one zero is neither's: gzip's


class FolderSource:
    """The rows of a `metadata.jsonl` and the bytes beside it."""

    def __init__(self, path: str) -> None:
        self.root, self.where = Path(path), path
        if not self.root.exists():
            raise UsageError(
                f"the data '{path}' does not exist; give a folder or a zip with {METADATA}", code="data-missing"
            )
        if not (self.root.is_dir() or self.root.is_file()):
            raise UsageError(
                f"the data '{path}' is no folder and no regular file; give a folder or a zip", code="file-not-regular"
            )
        self._zip = None if self.root.is_dir() else open_zip(self.root)
        self.metadata = METADATA if self._has(METADATA) or not self._has(TABLE) else TABLE
        self.rows: list[Row] = []
        self.broken: list[Skipped] = []
        # A zip of a few kB unfolds to millions of rows; a good one has an image of each.
        most = sys.maxsize if self._zip is None else max(MOST_BROKEN, 4 * len(self._zip.infolist()))
        for number, row in self._lines():
            if len(self.broken) >= MOST_BROKEN:
                raise UsageError(
                    f"{self.metadata} of '{path}' has over {MOST_BROKEN} lines that are no row; is it the file?",
                    code="metadata-unreadable",
                )
            if isinstance(row, Skipped):
                self.broken.append(row)
            elif not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("file_name", "text")):
                name = str(row.get("file_name")) if isinstance(row, dict) else f"line {number}"
                sentence = f"{self.metadata} line {number} of '{path}' lacks a 'file_name' or a 'text'"
                self.broken.append(Skipped(name, "missing caption", sentence))
            elif (trouble := trouble_of(row)) is not None:
                name = row["file_name"]
                sentence = f"{self.metadata} line {number} of '{path}' {trouble}; mend it"
                self.broken.append(Skipped(name, "odd column", sentence))
            else:
                self.rows.append(row)
                if len(self.rows) > most:
                    raise UsageError(
                        f"{self.metadata} of '{path}' has over {most} rows, "
                        "far more than the zip has files; is it the file?",
                        code="metadata-too-large",
                    )

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """Each line of the metadata as what it holds, or as why it holds nothing."""
        empty = 0
        if self._zip is None and not self._has(self.metadata) and coco.caption_files(self.root):
            yield from coco.rows(self.root)
            return
        if self.metadata == TABLE:
            yield from self._table()
            return
        with self._open_metadata() as file:
            for number, line in enumerate(lines_of(file, f"{self.metadata} of '{self.root}'"), 1):
                where = f"{self.metadata} line {number} of '{self.root}'"
                if line is None:
                    sentence = f"{where} has over {LONGEST_LINE} bytes and a row some hundred; look for a lost newline"
                    yield number, Skipped(f"line {number}", "too long", sentence)
                    continue
                if not line.strip():
                    empty += 1
                    if empty > MOST_EMPTY:
                        raise UsageError(
                            f"{self.metadata} of '{self.root}' has over {MOST_EMPTY} empty lines; take them out",
                            code="metadata-too-large",
                        )
                    continue
                if line.count(b",") + line.count(b"[") + line.count(b"{") > MOST_VALUES:
                    sentence = f"{where} has over {MOST_VALUES} values and a row a few; look for what it is"
                    yield number, Skipped(f"line {number}", "too long", sentence)
                    continue
                try:
                    yield number, strict_json.parse(line.decode("utf-8"), finite=False)
                except UnicodeDecodeError as error:
                    byte = f"byte {error.start + 1} of it is 0x{line[error.start]:02x}"
                    sentence = f"{where} is not UTF-8 ({byte}); save the file as UTF-8"
                    yield number, Skipped(f"line {number}", "not UTF-8", sentence)
                except ValueError as error:
                    yield number, Skipped(f"line {number}", "not JSON", f"{where} is not JSON: {error}")

    def _table(self) -> Iterator[tuple[int, Any]]:
        """Each line of metadata.csv after its first, which names the columns; an empty cell is no value."""
        where = f"{TABLE} of '{self.root}'"

        def texts(file: IO[bytes]) -> Iterator[str]:
            for number, line in enumerate(lines_of(file, where), 1):
                if line is None:
                    raise csv.Error(f"line {number} has over {LONGEST_LINE} bytes")
                yield line.decode("utf-8")

        with self._open_metadata() as file:
            table = csv.DictReader(texts(file), restkey="", strict=True)
            try:
                for row in table:
                    if "" in row:
                        name = str(row.get("file_name"))
                        sentence = (
                            f"{TABLE} line {table.line_num} of '{self.where}' has more values than its first line"
                        )
                        yield table.line_num, Skipped(name, "odd column", f"{sentence} has names; quote its commas")
                        continue
                    yield table.line_num, {k: v for k, v in row.items() if v or (k == "text" and v is not None)}
            except (csv.Error, UnicodeDecodeError) as error:
                said = f"{where} is no table in UTF-8 ({str(error)[:120]})"
                raise UsageError(f"{said}; save it as CSV with commas", code="metadata-unreadable") from error

    def _has(self, name: str) -> bool:
        return (self.root / name).exists() if self._zip is None else name in self._zip.namelist()

    def _open_metadata(self) -> Any:
        path = self.root / self.metadata
        try:
            if self._zip is not None:
                return self._zip.open(self.metadata)
            if not path.exists():
                raise FileNotFoundError(path)
            if not path.is_file():
                raise UsageError(
                    f"'{path}' is no regular file; give a folder with {self.metadata} in it", code="file-not-regular"
                )
            return path.open("rb")
        except (KeyError, FileNotFoundError) as error:
            raise UsageError(f"'{self.root}' has no file '{METADATA}'", code="metadata-missing") from error
        except (*_DAMAGE, OSError) as error:
            raise UsageError(
                f"'{self.metadata}' in '{self.root}' can't be read: {error}", code="metadata-unreadable"
            ) from error

    def read(self, index: int) -> bytes:
        """The bytes of a row's image."""
        return self.bytes_of(self.rows[index]["file_name"])

    def bytes_of(self, name: str) -> bytes:
        """The bytes of a file; UsageError naming it where it isn't there, or leaves the root."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
            raise UsageError(
                f"'{self.root}' names the file '{name}', which leaves its folder; mend {self.metadata}",
                code="file-outside-folder",
            )
        if self._zip is not None:
            return read_member(self._zip, name, where=str(self.root))
        place = self.root / name
        if place.exists() and not place.resolve().is_relative_to(self.root.resolve()):
            raise UsageError(
                f"'{self.root}' links '{name}' to outside its folder; copy the file into it", code="file-outside-folder"
            )
        if not place.exists():
            raise UsageError(f"'{self.root}' has no file '{name}'", code="file-missing")
        return read_file(place)

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
