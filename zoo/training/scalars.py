"""What a run writes for people: `scalars.csv`, sample sheets, and TensorBoard events where that is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from torch import Tensor


class Scalars:
    """Appends to a run's folder; every line is complete on disk once written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        new = not (folder / "scalars.csv").exists()
        self._file = (folder / "scalars.csv").open("a", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file)
        if new:
            self._csv.writerow(["step", "name", "value"])
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # an extra, not a need: the CSV has it all
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"))

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
        Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(self.folder / "samples" / f"step-{step:08d}.png")
        if self._board is not None:
            self._board.add_image("samples", sheet, step)

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
