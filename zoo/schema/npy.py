"""Arrays of real numbers out of .npy files, whose headers are hostile until held against the file's size.

137 bytes can claim 16 GiB. Nothing pickled is read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO

import numpy as np

from zoo.schema.errors import UsageError

LARGEST = 4 * 2**30  # bytes of numbers in a file


def read_npy(path: Path) -> np.ndarray:
    """The numbers of an .npy; UsageError naming the file for anything else, before memory is allocated."""
    if not path.is_file():
        reason = "is not a regular file" if path.exists() else "does not exist"
        raise UsageError(
            f"the array '{path}' {reason}; give an .npy or .npz file, or a folder of .npy files", code="file-missing"
        )
    try:
        with path.open("rb") as file:
            return numbers_of(file, path.stat().st_size, str(path))
    except UsageError:
        raise
    except Exception as error:  # whatever a hostile or cut file makes numpy raise
        raise UsageError(
            f"'{path}' can't be read as an array: {error}; write it with numpy.save", code="array-unreadable"
        ) from error


def numbers_of(file: IO[bytes], size: int, where: str) -> np.ndarray:
    """An .npy's array of real numbers, whose header claims exactly what is there."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is of version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns, dtype = read(file)
    if dtype.kind not in "fiu" or dtype.hasobject:
        raise UsageError(
            f"'{where}' holds {dtype}, not real numbers; save floats or integers", code="array-not-numbers"
        )
    claimed, there = math.prod(int(n) for n in shape) * dtype.itemsize, size - file.tell()
    if claimed != there:
        raise UsageError(
            f"'{where}' claims {claimed} bytes of numbers and {there} are there; it is cut off or forged",
            code="array-truncated",
        )
    if claimed > LARGEST:
        raise UsageError(f"'{where}' has {claimed} bytes; at most {LARGEST} are read at once", code="file-too-large")
    data = file.read(claimed)
    if len(data) != claimed:
        raise UsageError(f"'{where}' is cut off; restore the whole file", code="array-truncated")
    flat = np.frombuffer(data, dtype=dtype)
    return flat.reshape(shape, order="F" if columns else "C")
