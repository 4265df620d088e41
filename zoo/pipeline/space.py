"""A sample space: what a stage draws once it is decoded, as one object.

A stage has one. It says how long a sample's axes are and in which units its values come out, how samples are looked at,
written and read back, and what can't stand beside them. `Images` are pictures, `Arrays` signals, fields and volumes.
The loop over stages, the request, `Generation` and `zoo replay` ask the space, and none of them knows which it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from zoo.images.space import Images
from zoo.pipeline.arrays import Arrays

if TYPE_CHECKING:
    from torch import Tensor

SPACES = (Images, Arrays)


class SampleSpace(Protocol):
    """See the module. `drawn` is what `finish` gave, float32 on the CPU."""

    feeds: ClassVar[str]  # what a stage alone, or the last one, feeds
    word: ClassVar[str]  # what samples are called: images, arrays
    value: ClassVar[str]  # what a replay compares each of
    default_file: ClassVar[str]  # where a command writes to if told nothing
    size_words: ClassVar[tuple[str, int | None]]  # how a command's size is written, and how many numbers it has at most

    @property
    def side(self) -> int:
        """Pixels a side; UsageError where samples are no pictures."""
        ...

    @property
    def values(self) -> tuple[float, float]:
        """What the lowest and highest value of a network's range, -1 and 1, stand for."""
        ...

    def lengths(self, size: Any, *, stage: str, multiple: int, dims: int | None) -> tuple[int, ...]:
        """A sample's axes where `size` is requested (None: its own); UsageError for one the networks can't do."""
        ...

    def check_pipeline(self, stage: str, *, stages: int, safety: Any, guidance: Iterable[Any]) -> None:
        """ConfigError for what can't stand in one pipeline with such a stage."""
        ...

    def check_call(self, stage: str, **given: Any) -> None:
        """UsageError for an image, a mask or a strength that such samples have no use for."""
        ...

    def finish(self, decoded: Tensor) -> Tensor:
        """What the autoencoder gave, in the units that are returned."""
        ...

    def images(self, drawn: Tensor) -> Tensor:
        """As images (B, 3, H, W) in [0, 1]; UsageError where samples are none."""
        ...

    def arrays(self, drawn: Tensor) -> Tensor:
        """As arrays in the data's units; UsageError where samples are images."""
        ...

    def view(self, drawn: Tensor) -> Image.Image:
        """A picture of them for a look."""
        ...

    def said(self, drawn: Tensor) -> str:
        """What they are, in a few words."""
        ...

    def html(self, drawn: Tensor, record: Mapping[str, Any]) -> str:
        """They as a notebook shows them."""
        ...

    def size_note(self, size: Any, who: str) -> str | None:
        """What there is to say of another size than the network learned."""
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

    def read(self, path: str | Path) -> np.ndarray:
        """A file that `save` wrote, for a comparison."""
        ...

    def file_lengths(self, count: int) -> tuple[int, ...]:
        """Those of the axes of a file of so many samples that a record's size decides."""
        ...

    def file_lengths_of(self, file: np.ndarray) -> tuple[int, ...]:
        """The same of a file that was read."""
        ...

    def as_file(self, drawn: Tensor) -> np.ndarray:
        """What `read` gives of a file that holds these samples."""
        ...

    def steps(self, file: np.ndarray) -> np.ndarray:
        """A file's values in 255ths of the range that -1 to 1 stand for."""
        ...


def space_of(stage: Mapping[str, Any]) -> SampleSpace:
    """The space of a stage's block, as `zoo.check` writes it out or as a record states it.

    Raises UsageError where a record's block has another form.
    """
    kind = next((space for space in SPACES if space.feeds == stage.get("feeds")), Images)
    return kind.of_block(stage)
