"""Where scalars and sheets go besides `scalars.csv`: each logger is a component, named in a recipe's `loggers`.

A logger is made with its settings, opened on a run's folder before the first step, and then given scalars and sheets.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from zoo.schema.errors import UsageError


class Logger(Protocol):
    """What `Scalars` passes on of a run."""

    def open(self, folder: Path, step: int) -> None:
        """Begin in a run's folder, at `step` where the run goes on; UsageError where it can't."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name."""

    def sheet(self, step: int, sheet: Tensor) -> None:
        """A sample sheet, uint8 (3, H, W)."""

    def close(self) -> None:
        """The run has ended."""


class TensorBoard:
    """TensorBoard's event files in the run's folder."""

    def open(self, folder: Path, step: int) -> None:
        """As `Logger` says; UsageError where TensorBoard isn't installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "the logger 'tensorboard' needs TensorBoard; pip install tensorboard", code="package-missing"
            ) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As `Logger` says."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def sheet(self, step: int, sheet: Tensor) -> None:
        """As `Logger` says."""
        self._writer.add_image("samples", sheet, step)

    def close(self) -> None:
        """As `Logger` says."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, under the name of the run's folder, where the package is installed.

    Args:
        project: whose runs it is among. mode: `online`, or `offline` to keep it on this machine.
    """

    def __init__(self, *, project: str = "zoo", mode: str = "online") -> None:
        self.project, self.mode = project, mode
        self._run: Any = None

    def open(self, folder: Path, step: int) -> None:
        """As `Logger` says; UsageError where the package isn't installed."""
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UsageError(
                "the logger 'wandb' needs Weights & Biases; pip install wandb", code="package-missing"
            ) from error
        self._image = wandb.Image
        self._run = wandb.init(
            project=self.project, name=folder.name, id=folder.name, dir=str(folder), mode=self.mode, resume="allow"
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """As `Logger` says."""
        self._run.log(dict(values), step=step)

    def sheet(self, step: int, sheet: Tensor) -> None:
        """As `Logger` says."""
        self._run.log({"samples": self._image(sheet.permute(1, 2, 0).numpy())}, step=step)

    def close(self) -> None:
        """As `Logger` says."""
        self._run.finish()


def usual() -> list[Logger]:
    """The loggers of a recipe that names none: TensorBoard where it is installed."""
    return [TensorBoard()] if find_spec("tensorboard") is not None else []
