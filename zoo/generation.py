"""What a pipeline returns: samples, pictures, and a record of how they came about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from zoo.display import captions, images_html, png
from zoo.errors import ZooError
from zoo.record import RECORD_KEY, read_record
from zoo.schema.files import atomic
from zoo.schema.names import targets

__all__ = ["RECORD_KEY", "Generation", "read_record", "sheet", "targets", "to_pil"]


def to_pil(tensor: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> PIL, rounded to nearest."""
    return Image.fromarray(tensor.mul(255).round_().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def sheet(images: Sequence[Image.Image], *, columns: int | None = None, gap: int = 4) -> Image.Image:
    """Pictures of one size side by side on white."""
    columns = columns or min(len(images), max(1, round(len(images) ** 0.5 + 0.49)))
    width, height = images[0].size
    rows = -(-len(images) // columns)
    out = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        out.paste(image, ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return out


@dataclass(frozen=True)
class Generation:
    """The outcome of a run.

    `samples` is what the last stage sampled, (B, C, *spatial): latents for a latent stage. `tensor` is the pictures,
    (B, 3, H, W) in [0, 1] on the CPU. `record` says what made them: resolved config, weight hashes, versions, seeds,
    prompts, device, hashes of input pictures, verdicts; its `images` has one entry a picture.
    """

    samples: Tensor
    tensor: Tensor
    record: Mapping[str, Any]

    @cached_property
    def images(self) -> list[Image.Image]:
        """The pictures as PIL images."""
        return [to_pil(t) for t in self.tensor]

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        height, width = self.tensor.shape[-2:]
        return f"Generation({len(self)} image{'s' if len(self) != 1 else ''} of {height}x{width})"

    def _repr_png_(self) -> bytes:
        """The sheet, for what shows PNG alone."""
        return png(self.sheet())

    def _repr_html_(self) -> str:
        """The images with their prompts, for a notebook."""
        return images_html(self.images, captions(self.record, len(self)))

    def sheet(self, columns: int | None = None) -> Image.Image:
        """All pictures in one."""
        return sheet(self.images, columns=columns)

    def targets(self, path: str | Path, *, grid: bool = False, overwrite: bool = False) -> list[Path]:
        """The files `save` would write."""
        return targets(path, len(self), grid=grid, overwrite=overwrite)

    def save(self, path: str | Path, *, grid: bool = False, overwrite: bool = False) -> list[Path]:
        """Write the pictures, each with its record inside if it is a PNG, and return the files.

        A path that ends in a picture's suffix is a file: one picture (or the sheet, with `grid`) goes there, several
        become NAME-0.png, NAME-1.png, ... Any other path is a folder, made where missing, with 0000.png, 0001.png, ...
        Numbers go on after those that are there; with `overwrite` they begin again. Each file appears whole or not at
        all. Raises UsageError for an unknown suffix and ZooError where the disk refuses.
        """
        files = self.targets(path, grid=grid, overwrite=overwrite)
        pictures = [self.sheet()] if grid else self.images
        shared = {k: v for k, v in self.record.items() if k != "images"}
        entries = self.record.get("images", [])
        records = [{**shared, "images": entries if grid else entries[i : i + 1]} for i in range(len(files))]
        for file, picture, record in zip(files, pictures, records, strict=True):
            information = PngInfo()
            information.add_itxt(RECORD_KEY, json.dumps(record))
            kind = Image.registered_extensions()[file.suffix.lower()]
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic(file) as place:
                    picture.save(place, format=kind, pnginfo=information)
            except OSError as error:
                raise ZooError(f"'{file}' can't be written: {error.strerror or error}; choose another place") from error
        return files
