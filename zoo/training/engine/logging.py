"""A run's `scalars.csv` and sample sheets, and both to its loggers."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from zoo.schema.files import atomic, lines_of
from zoo.training.engine.loggers import Logger

HEADER = "step,name,value"
LONGEST_LINE = 4096  # bytes
_STEP = re.compile(rb"([0-9]{1,18}),")


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
            for line in lines_of(place, LONGEST_LINE) if place.is_file() else ():
                if (found := _STEP.match(line)) and int(found[1]) <= step:
                    file.write(line)
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
