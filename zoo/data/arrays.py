"""Arrays to train on: signals, fields and volumes, as one .npy, one array of an .npz, or a folder of .npy files.

A file is hostile until its header is held against its size: 137 bytes can claim 16 GiB. Nothing pickled is read.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from zoo.data.dataset import Row
from zoo.images.zips import check_list
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.npy import LARGEST, numbers_of, read_npy
from zoo.schema.ranges import within

TIGHTEST = 200  # times smaller than itself that an array in an .npz is believed to be packed


@runtime_checkable
class ArrayDataset(Protocol):
    """Arrays of one shape, by place: what signals and volumes are trained on, in place of `Dataset`."""

    rows: Sequence[Row]
    values: tuple[float, float]  # the numbers that become -1 and 1
    split: str | None

    def __len__(self) -> int: ...

    def arrays(self) -> np.ndarray:
        """All of them, float32 (N, C, *spatial), `values` brought to -1 and 1."""
        ...

    def fingerprint(self) -> str:
        """What decides `arrays()`."""
        ...


class ArrayFile:
    """Signals, fields or volumes in a .npy, an .npz or a folder of .npy files, as numbers.

    Args:
        path: an .npy or .npz of (N, C, *spatial), or a folder of .npy files (C, *spatial), in the order of their names.
        split: `val` is the last share of the rows, `train` the rest; without one all rows.
        values: the numbers that become -1 and 1; a number outside is refused.
        channels: whether there is an axis C; without, (N, *spatial) are arrays of one channel.
        key: which array of an .npz that has several. held_out: the share of the rows that is `val`.
    """

    def __init__(
        self, *, path: str, split: str | None = None, values: tuple[float, float] = (-1.0, 1.0), channels: bool = True,
        key: str | None = None, held_out: float = 0.1,
    ) -> None:  # fmt: skip
        self.path, self.split, self.values = Path(path), split, read_values(values)
        within(0.0, 1.0, {"held_out": held_out}, "()")
        if split not in (None, "train", "val"):
            raise ConfigError(f"the split of '{path}' is '{split}'; arrays have train and val", code="split-unknown")
        whole = self._read(key)
        if not channels:
            whole = whole[:, None]
        if not 3 <= whole.ndim <= 5 or 0 in whole.shape:
            raise UsageError(
                f"'{path}' holds an array of shape {whole.shape}; give (N, C, *spatial) with one to three axes, or set "
                "channels: false where there is no C",
                code="array-shape-wrong",
            )
        kept = min(len(whole) - 1, max(1, round(len(whole) * held_out)))
        if split is not None and kept < 1:
            raise UsageError(f"'{path}' has one row, which can't be split; give two or more", code="data-too-few")
        chosen = slice(None) if split is None else slice(-kept, None) if split == "val" else slice(None, -kept)
        self._arrays = self._scaled(whole[chosen])
        first = len(whole) - kept if split == "val" else 0
        self.rows: list[Row] = [{"file_name": f"row {first + i}", "text": ""} for i in range(len(self._arrays))]

    def _read(self, key: str | None) -> np.ndarray:
        if self.path.is_dir():
            files = sorted(self.path.glob("*.npy"))
            if not files:
                raise UsageError(f"the folder '{self.path}' holds no .npy file; give one that does", code="data-empty")
            parts = [read_npy(file) for file in files]
            other = next((i for i, part in enumerate(parts) if part.shape != parts[0].shape), None)
            if other is not None:
                raise UsageError(
                    f"'{files[other]}' has shape {parts[other].shape} and '{files[0].name}' {parts[0].shape}; give "
                    "arrays of one shape",
                    code="array-shapes-differ",
                )
            return np.stack(parts)
        if self.path.suffix.lower() == ".npz":
            return _read_npz(self.path, key)
        if key is not None:
            raise ConfigError(
                f"'{self.path}' is no .npz, and key names an array of one; take key out", code="array-key-unfit"
            )
        return read_npy(self.path)

    def _scaled(self, found: np.ndarray) -> np.ndarray:
        low, high = self.values
        least, most = float(found.min()), float(found.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise UsageError(f"'{self.path}' holds NaN or infinity; mend the data", code="array-not-finite")
        if least < low or most > high:
            raise UsageError(
                f"'{self.path}' holds values from {least:.6g} to {most:.6g}, "
                f"outside of {low:g} to {high:g}; set values",
                code="array-out-of-range",
            )
        return ((found.astype(np.float64) - low) * (2.0 / (high - low)) - 1.0).astype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def arrays(self) -> np.ndarray:
        """All rows, float32 (N, C, *spatial) in [-1, 1]."""
        return self._arrays

    def fingerprint(self) -> str:
        """A hash of the numbers."""
        return hashlib.sha256(repr(self._arrays.shape).encode() + self._arrays.tobytes()).hexdigest()


def read_values(values: Any) -> tuple[float, float]:
    """[low, high], checked."""
    low, high = (float(v) for v in values) if len(values) == 2 else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(
            f"values is {list(values)}; write [low, high], what -1 and 1 stand for", code="values-range-invalid"
        )
    return low, high


def _read_npz(path: Path, key: str | None) -> np.ndarray:
    if not path.is_file():
        raise UsageError(
            f"the array '{path}' does not exist; give an .npy or .npz file, or a folder of .npy files",
            code="data-missing",
        )
    try:
        check_list(path)
        with zipfile.ZipFile(path) as archive:
            found = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
            name = next(iter(found), "") if key is None and len(found) == 1 else key
            if name is None or name not in found:
                raise UsageError(
                    f"'{path}' holds the arrays {', '.join(sorted(found)) or 'none'}; set key to one",
                    code="array-key-unfit",
                )
            info = found[name]
            if info.file_size > LARGEST or info.file_size > TIGHTEST * max(info.compress_size, 512):
                raise UsageError(
                    f"'{name}' in '{path}' would unpack to {info.file_size} bytes; store it as .npy",
                    code="file-too-large",
                )
            with archive.open(info) as member:
                return numbers_of(member, info.file_size, f"{path}:{name}")
    except UsageError:
        raise
    except Exception as error:  # whatever a hostile or cut file makes zipfile, zlib and numpy raise
        raise UsageError(
            f"'{path}' can't be read as an .npz: {error}; write it with numpy.savez", code="array-unreadable"
        ) from error
