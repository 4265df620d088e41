"""Pictures with captions in the ImageFolder convention: a folder or a zip with `metadata.jsonl`.

Each line of `metadata.jsonl` is an object with `file_name` and `text`; `split`, `name`, `keywords` and whatever
else the data has stay with the row. File names are hostile until checked: none may leave the root.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo.errors import UsageError

METADATA = "metadata.jsonl"
LARGEST_FILE = 64 * 2**20  # bytes of one picture or of the metadata
LARGEST_PICTURE = 64 * 10**6  # pixels


class ImageFolder:
    """Pictures with captions, in a folder or a zip with metadata.jsonl.

    Args:
        path: a folder or a .zip file. split: keep only rows whose `split` is this. size: pixels a side.

    Raises UsageError naming the file for a missing path, a row without `file_name` or `text`, a name that leaves
    the root, a file that is not a picture.
    """

    def __init__(self, *, path: str, split: str | None = None, size: int = 64) -> None:
        self.root, self.split, self.size = Path(path), split, size
        if not self.root.exists():
            raise UsageError(f"the data '{path}' does not exist; give a folder or a zip with {METADATA}")
        self._zip = None if self.root.is_dir() else self._open_zip()
        self.rows = [row for row in self._read_rows() if split is None or row.get("split") == split]
        if not self.rows:
            raise UsageError(f"'{path}' has no rows" + (f" of split '{split}'" if split else ""))

    def __len__(self) -> int:
        return len(self.rows)

    def _open_zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.root)
        except (zipfile.BadZipFile, OSError) as error:
            raise UsageError(f"'{self.root}' is not a zip file: {error}") from error

    def _read(self, name: str) -> bytes:
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
        except (zipfile.BadZipFile, OSError) as error:
            raise UsageError(f"'{name}' in '{self.root}' can't be read: {error}") from error

    def _read_rows(self) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(self._read(METADATA).decode("utf-8", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UsageError(f"{METADATA} line {number} of '{self.root}' is not JSON: {error}") from error
            if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("file_name", "text")):
                raise UsageError(f"{METADATA} line {number} of '{self.root}' lacks a 'file_name' or a 'text'")
            yield row

    def image(self, index: int) -> np.ndarray:
        """Row `index` as uint8 (3, size, size): transparent parts on white, area average, square centre crop."""
        name = self.rows[index]["file_name"]
        try:
            with Image.open(io.BytesIO(self._read(name))) as picture:
                if picture.width * picture.height > LARGEST_PICTURE:
                    raise UsageError(f"'{name}' in '{self.root}' has over {LARGEST_PICTURE} pixels")
                return to_square(picture, self.size)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise UsageError(f"'{name}' in '{self.root}' is not a picture: {error}") from error

    def images(self, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """All pictures, uint8 (N, 3, size, size)."""
        out = np.empty((len(self), 3, self.size, self.size), dtype=np.uint8)
        for i in range(len(self)):
            out[i] = self.image(i)
            if progress is not None:
                progress(i + 1)
        return out


def to_square(picture: Image.Image, size: int) -> np.ndarray:
    """A PIL picture -> uint8 (3, size, size) on white, centre-cropped, area-averaged down (bicubic up)."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    if side != size:
        picture = picture.resize((size, size), Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))
