"""What a run writes for people: `scalars.csv`, sample sheets, and TensorBoard events where that is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor

from zoo.schema.files import atomic, write_atomically

HEADER = "step,name,value"


class Scalars:
    """Appends to a run's folder; every line is complete on disk once written.

    A run that goes on from `step` forgets the lines after it, whose steps it takes again.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        place = folder / "scalars.csv"
        lines = place.read_text(encoding="utf-8", errors="replace").splitlines() if place.is_file() else []
        kept = [ln for ln in lines[1:] if ln.partition(",")[0].isdigit() and int(ln.partition(",")[0]) <= step]
        # Also where it is new: a link to nowhere would be followed out of the folder.
        write_atomically(place, "".join(f"{ln}\n" for ln in [HEADER, *kept]).encode())
        self._file = place.open("a", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file, lineterminator="\n")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # an extra, not a need: the CSV has it all
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line a value."""
        for name, value in values.items():
            self._csv.writerow([step, name, f"{value:.6g}"])
            if self._board is not None:
                self._board.add_scalar(name, value, step)
        self._file.flush()

    def picture(self, step: int, sheet: Tensor) -> None:
        """A sheet, uint8 (3, H, W), as samples/step-N.png."""
        (self.folder / "samples").mkdir(exist_ok=True)
        with atomic(self.folder / "samples" / f"step-{step:08d}.png") as file:
            Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(file, "PNG")
        if self._board is not None:
            self._board.add_image("samples", sheet, step)

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
