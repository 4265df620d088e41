"""What a pipeline returns: samples, decoded samples, and a record of how they were made."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from zoo.images.display import png
from zoo.images.space import IMAGES, sheet, to_pil
from zoo.pipeline.space import SampleSpace
from zoo.records.reading import RECORD_KEY, read_record
from zoo.schema.errors import UsageError
from zoo.schema.files import numbering
from zoo.schema.names import as_path, check_length, free, targets

__all__ = ["RECORD_KEY", "Generation", "read_record", "sheet", "targets", "to_pil"]


@dataclass(frozen=True, repr=False)
class Generation:
    """The result of a run; its space says what the samples are (zoo.pipeline.space).

    `samples` is what the last stage sampled, (B, C, *spatial): latents for a latent stage. `drawn` is the
    decoded samples, float32 on the CPU: images (B, 3, H, W) in [0, 1], or arrays in the data's units. `record` says how
    they were made: resolved config, weight hashes, versions, seeds, prompts, device, hashes of input images, verdicts;
    its `images` has one entry a sample.
    """

    samples: Tensor
    drawn: Tensor
    record: Mapping[str, Any]
    space: SampleSpace = IMAGES

    @property
    def tensor(self) -> Tensor:
        """Images (B, 3, H, W) in [0, 1]; UsageError where arrays were drawn."""
        return self.space.images(self.drawn)

    @property
    def arrays(self) -> Tensor:
        """Arrays (B, C, *spatial) in the data's units, not clipped; UsageError where images were drawn."""
        return self.space.arrays(self.drawn)

    @property
    def numpy(self) -> np.ndarray:
        """`drawn` as float32 (B, C, *spatial)."""
        return self.drawn.numpy()

    @property
    def values(self) -> tuple[float, float]:
        """What a network's -1 and 1 mean in `drawn`."""
        return self.space.values

    @cached_property
    def images(self) -> list[Image.Image]:
        """The images as PIL, whose own `save` writes a PNG with the record; UsageError where arrays were drawn."""
        return self.space.pictures(self.drawn, self.record)

    @cached_property
    def view(self) -> Image.Image:
        """One image to look at: all images in a sample grid; the first arrays, as lines, in grey or in slices."""
        return self.space.view(self.drawn)

    def __len__(self) -> int:
        return len(self.drawn)

    def __repr__(self) -> str:
        return f"Generation({self.space.said(self.drawn)})"

    def _repr_png_(self) -> bytes:
        """The view, for frontends that show PNG only."""
        return png(self.view)

    def _repr_html_(self) -> str:
        """For a notebook: images with their prompts, or the view of arrays."""
        return self.space.html(self.drawn, self.record)

    def sheet(self, columns: int | None = None) -> Image.Image:
        """All images in one sample grid; UsageError where arrays were drawn."""
        return sheet(self.images, columns=columns)

    def targets(self, path: str | Path, *, grid: bool = False, overwrite: bool = False) -> list[Path]:
        """The files `save` would write."""
        return self.space.targets(path, len(self), grid=grid, overwrite=overwrite)

    def save(
        self, path: str | os.PathLike[str] | BinaryIO | None = None, *, grid: bool = False, overwrite: bool = False
    ) -> list[Path]:  # fmt: skip
        """Write the samples with their record as their space does, and return the files; `grid` is all in one image.

        Images go to an image file each (NAME-0.png, ... for several), with the record inside a PNG; arrays into one
        .npy with the record in a .json beside it. A path without a suffix is a folder; none is out.png or out.npy, or
        out-1.png where that is there. Numbers go on after those of existing files, whoever writes there; with
        `overwrite` they begin again. Each file appears whole or not at all. An open
        binary file (`io.BytesIO`) gets one image as a PNG, or the .npy, and no file is returned. Raises UsageError for
        an unknown suffix and ZooError where the disk refuses.
        """
        if path is not None and not isinstance(path, (str, os.PathLike)):
            if not callable(getattr(path, "write", None)) or isinstance(path, io.TextIOBase):
                raise UsageError(
                    f"samples are saved to a path or an open binary file, not {type(path).__name__}; give one of them",
                    code="output-type-wrong",
                )
            self.space.write(self.drawn, self.record, path, grid=grid)
            return []
        place = as_path(self.space.default_file if path is None else path, "file")
        check_length(place, "file")
        given = str(path) if path is not None and str(path).endswith(("/", "\\")) else place  # a folder, by its slash
        with numbering(self.targets(given, grid=grid, overwrite=overwrite)[0].parent):
            place = free(place, overwrite=overwrite) if path is None else given
            return self.space.save(self.drawn, self.record, place, grid=grid, overwrite=overwrite)
