"""Whether a file can be written somewhere, asked before what it takes to make it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from zoo.schema.errors import UsageError


def check_place(path: str | Path, said: str | Path | None = None) -> None:
    """UsageError where no file `path` can be made, with the folders that it needs; nothing is left there.

    Args:
        said: what was written for it, where that is something else, like a folder.
    """
    said = path if said is None else said
    folder = Path(path).absolute().parent
    place = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if not place.is_dir():
        raise _unwritable(said, f"'{place}' is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _unwritable(said, f"no permission for '{place}'")
    try:
        with tempfile.TemporaryFile(dir=place):  # what a file system takes, no permission tells
            pass
    except OSError as error:
        raise _unwritable(said, f"'{place}' takes no files ({error.strerror or error})") from error


def _unwritable(path: str | Path, why: str) -> UsageError:
    return UsageError(f"'{path}' can't be written: {why}; choose another place", code="output-unwritable")
