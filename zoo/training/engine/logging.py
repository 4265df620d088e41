"""A run's `scalars.csv` and sample sheets, and both to its loggers."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from torch import Tensor

from zoo.schema.files import atomic, open_plain
from zoo.training.engine.loggers import Logger

HEADER = "step,name,value"
LONGEST_LINE = 4096  # bytes
WINDOW = 16 * LONGEST_LINE  # bytes of the file that are looked at in one place
_LINE = re.compile(rb"^([0-9]{1,18}),.*\n", re.MULTILINE)


class Scalars:
    """Appends to a run's folder; every line is complete on disk once written.

    A run that goes on from `step` forgets the lines after it, whose steps it takes again.
    """

    def __init__(self, folder: Path, step: int = 0, loggers: Sequence[Logger] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        place = folder / "scalars.csv"
        # Also where it is new: a link to nowhere would be followed out of the folder.
        with atomic(place, durable=True) as file:
            file.write(f"{HEADER}\n".encode())
            if place.is_file():
                with open_plain(place) as before:
                    _keep(before, file, step)
        self._file = place.open("a", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._loggers = loggers
        for logger in loggers:
            logger.open(folder, step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line a value."""
        for name, value in values.items():
            self._csv.writerow([step, name, f"{value:.6g}"])
        self._file.flush()
        for logger in self._loggers:
            logger.scalars(step, values)

    def picture(self, step: int, sheet: Tensor) -> None:
        """A sheet, uint8 (3, H, W), as samples/step-N.png."""
        (self.folder / "samples").mkdir(exist_ok=True)
        with atomic(self.folder / "samples" / f"step-{step:08d}.png") as file:
            Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(file, "PNG")
        for logger in self._loggers:
            logger.sheet(step, sheet)

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        for logger in self._loggers:
            logger.close()


def _keep(before: BinaryIO, after: BinaryIO, step: int) -> None:
    """Copy the lines up to a step. Steps only grow, so the last such line is found by halving, however many."""

    def window(at: int) -> bytes:
        before.seek(at)
        return before.read(WINDOW)

    first = window(0).partition(b"\n")[0]
    start = len(first) + 1 if first == HEADER.encode() else 0
    low, high = start, before.seek(0, 2)
    while high - low > WINDOW:
        middle = (low + high) // 2
        found = sorted(int(line) for line in _LINE.findall(window(middle).partition(b"\n")[2])[:9])
        if found and found[len(found) // 2] <= step:  # of several, since one may be damaged
            low = middle
        else:
            high = middle
    low += window(low).find(b"\n") + 1 if low > start else 0
    before.seek(start)
    while start < low:
        start += after.write(before.read(min(low - start, 2**20)))
    for line in _LINE.finditer(before.read(high - low + WINDOW)):
        if int(line[1]) <= step and len(line[0]) <= LONGEST_LINE:
            after.write(line[0])
