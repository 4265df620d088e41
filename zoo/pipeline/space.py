"""A sample space: what a stage's decoded samples are, as one object.

A stage has one. It says how long a sample's axes are and in which units its values are, how samples are viewed,
written and read back, and what they exclude. `Images` are images, `Arrays` signals, fields and volumes.
The loop over stages, the request, `Generation` and `zoo replay` call the space, whichever it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

import numpy as np
from PIL import Image

from zoo.images.space import Images
from zoo.pipeline.arrays import Arrays

if TYPE_CHECKING:
    from torch import Tensor

SPACES = (Images, Arrays)


class SampleSpace(Protocol):
    """See the module. `drawn` is the result of `finish`, float32 on the CPU."""

    feeds: ClassVar[str]  # what a stage alone, or the last one, feeds
    word: ClassVar[str]  # what samples are called: images, arrays
    value: ClassVar[str]  # what a replay compares each of
    default_file: ClassVar[str]  # where a command writes to by default
    size_words: ClassVar[tuple[str, int | None]]  # how a command's size is written, and how many numbers it has at most

    @property
    def side(self) -> int:
        """Pixels a side; UsageError where samples aren't images."""
        ...

    @property
    def values(self) -> tuple[float, float]:
        """What the lowest and highest value of a network's range, -1 and 1, mean."""
        ...

    def lengths(self, size: Any, *, stage: str, multiple: int, dims: int | None) -> tuple[int, ...]:
        """A sample's axes where `size` is requested (None: its own); UsageError for one that networks can't draw."""
        ...

    def check_pipeline(self, stage: str, *, stages: int, safety: Any, guidance: Iterable[Any]) -> None:
        """ConfigError for what can't be in one pipeline with such a stage."""
        ...

    def check_call(self, stage: str, **given: Any) -> None:
        """UsageError for an image, a mask or a strength where such samples don't take one."""
        ...

    def finish(self, decoded: Tensor) -> Tensor:
        """The autoencoder's output in the units that are returned."""
        ...

    def images(self, drawn: Tensor) -> Tensor:
        """As images (B, 3, H, W) in [0, 1]; UsageError where samples aren't images."""
        ...

    def arrays(self, drawn: Tensor) -> Tensor:
        """As arrays in the data's units; UsageError where samples are images."""
        ...

    def view(self, drawn: Tensor) -> Image.Image:
        """An image to look at them."""
        ...

    def said(self, drawn: Tensor) -> str:
        """What they are, in a few words."""
        ...

    def html(self, drawn: Tensor, record: Mapping[str, Any]) -> str:
        """The HTML that a notebook shows."""
        ...

    def size_note(self, size: Any, who: str) -> str | None:
        """A note on a size that the network wasn't trained at."""
        ...

    def targets(
        self, path: str | Path, count: int, *, grid: bool = False, overwrite: bool = False
    ) -> list[Path]:  # fmt: skip
        """The files that `save` writes `count` samples to."""
        ...

    def save(
        self, drawn: Tensor, record: Mapping[str, Any], path: str | Path, *, grid: bool = False, overwrite: bool = False
    ) -> list[Path]:  # fmt: skip
        """Write samples with their record; returns the files."""
        ...

    def write(self, drawn: Tensor, record: Mapping[str, Any], file: BinaryIO, *, grid: bool = False) -> None:
        """Write samples into an open binary file."""
        ...

    def pictures(self, drawn: Tensor, record: Mapping[str, Any]) -> list[Image.Image]:
        """The samples as PIL images, each with its record; UsageError where they aren't images."""
        ...

    def read(self, path: str | Path) -> np.ndarray:
        """A file that `save` wrote, for a comparison."""
        ...

    def file_lengths(self, count: int) -> tuple[int, ...]:
        """The lengths, as far as a record's size decides them, of a file of `count` samples."""
        ...

    def file_lengths_of(self, file: np.ndarray) -> tuple[int, ...]:
        """The same of a file that was read."""
        ...

    def as_file(self, drawn: Tensor) -> np.ndarray:
        """What `read` returns for a file of these samples."""
        ...

    def steps(self, file: np.ndarray) -> np.ndarray:
        """A file's values in 255ths of the range of -1 to 1."""
        ...


def space_of(stage: Mapping[str, Any]) -> SampleSpace:
    """The space of a stage's block, as `zoo.check` writes it out or as a record states it.

    Raises UsageError where a record's block has another form.
    """
    kind = next((space for space in SPACES if space.feeds == stage.get("feeds")), Images)
    return kind.of_block(stage)
