"""What a stage of signals or volumes draws: arrays in the data's own units, and a picture of them for a look.

Of an array nothing is clipped: a signal may overshoot the values that its data reached, and cutting that off would put
corners into it. Pictures of arrays show `values[0]` to `values[1]`, and what lies outside at the edge.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from zoo.display import images_html, png
from zoo.errors import UsageError, ZooError
from zoo.generation import Generation, sheet
from zoo.record import RECORD_KEY
from zoo.schema.files import atomic
from zoo.schema.names import array_targets

SHOWN = 16  # samples in a picture
SLICES = 8  # of a volume
SIGNAL = (192, 96)  # width and height of a signal's cell
SIDE = 96  # pixels that a field is enlarged to, at most, and a slice of a volume to half of that
COLOURS = ("#2f6fb7", "#e2843b", "#2f9e77", "#a24fa8")


class ArrayGeneration(Generation):
    """The outcome of a run of a stage that feeds arrays.

    `samples` is what the sampler gave, (B, C, *spatial); `arrays` the same in the data's units, where `values` are what
    -1 and 1 stand for; float32 on the CPU, not clipped. `record` is as for pictures. Asked for pictures, it refuses.
    """

    arrays: Tensor
    values: tuple[float, float]

    def __init__(
        self, *, samples: Tensor, arrays: Tensor, values: tuple[float, float], record: Mapping[str, Any]
    ) -> None:  # fmt: skip
        for name, value in (("samples", samples), ("arrays", arrays), ("values", values), ("record", record)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "tensor":  # `images` and `sheet` ask for it
            raise UsageError(
                "what this pipeline draws are arrays, not pictures; read .arrays or .numpy, or .view for a look"
            )
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        return f"ArrayGeneration(arrays={tuple(self.arrays.shape)}, values={self.values})"

    def _repr_png_(self) -> bytes:
        return png(self.view)

    def _repr_html_(self) -> str:
        return images_html([self.view], [repr(self)])

    @property
    def numpy(self) -> np.ndarray:
        """The arrays as float32 (B, C, *spatial)."""
        return self.arrays.numpy()

    @cached_property
    def view(self) -> Image.Image:
        """A picture of the first samples: signals as lines, fields in grey, volumes as slices side by side."""
        return view(self.arrays, self.values)

    def targets(self, path: str | Path, *, grid: bool = False, overwrite: bool = False) -> list[Path]:
        """The files `save` would write."""
        return array_targets(path, grid=grid, overwrite=overwrite)

    def save(self, path: str | Path, *, grid: bool = False, overwrite: bool = False) -> list[Path]:
        """Write all arrays as one file, and return the files.

        NAME.npy is a file of float32 (B, C, *spatial), with the record beside it in NAME.json and, with `grid`, a
        picture in NAME.png; NAME.png alone is the picture, with the record inside. Any other path is a folder, and gets
        samples.npy, samples.json and samples.png, or samples-1.npy, ... where those are there, unless `overwrite`.
        Each file appears whole or not at all.
        Raises UsageError for an unknown suffix and ZooError where the disk refuses.
        """
        files = self.targets(path, grid=grid, overwrite=overwrite)
        array = np.ascontiguousarray(self.numpy, dtype=np.float32)
        about = {
            "shape": list(array.shape), "dtype": str(array.dtype), "values": list(self.values),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }  # fmt: skip
        record = {**self.record, "array": about}
        write: dict[str, Callable[[Any], Any]] = {
            ".npy": lambda file: np.save(file, array, allow_pickle=False),
            ".json": lambda file: file.write((json.dumps(record, indent=1) + "\n").encode()),
            ".png": lambda file: file.write(_png(self.view, record)),
        }
        for file in files:
            _write(file, write[file.suffix.lower()])
        return files


def _png(picture: Image.Image, record: Mapping[str, Any]) -> bytes:
    information, file = PngInfo(), io.BytesIO()
    information.add_itxt(RECORD_KEY, json.dumps(record))
    picture.save(file, format="PNG", pnginfo=information)
    return file.getvalue()


def _write(path: Path, write: Callable[[Any], Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as file:
            write(file)
    except OSError as error:
        raise ZooError(f"'{path}' can't be written: {error.strerror or error}; choose another place") from error


def view(arrays: Tensor, values: Sequence[float]) -> Image.Image:
    """(B, C, *spatial), of one to three axes -> a picture of the first samples, values[0] dark or at the bottom."""
    low, high = values
    shown = ((arrays[:SHOWN].detach().float().cpu() - low) / (high - low)).clamp(0, 1)
    draw = {1: _signal, 2: _field, 3: _volume}.get(arrays.ndim - 2)
    if draw is None:
        raise UsageError(f"arrays of shape {tuple(arrays.shape)} can't be shown; give (B, C) and one to three axes")
    return sheet([draw(sample) for sample in shown])


def _signal(sample: Tensor) -> Image.Image:
    """(C, L) in [0, 1] -> a line a channel."""
    width, height = SIGNAL
    cell = Image.new("RGB", SIGNAL, "#f4f6f8")
    pen = ImageDraw.Draw(cell)
    pen.line([(0, height // 2), (width, height // 2)], fill="#d5dae0")
    across = np.linspace(0.0, width - 1.0, sample.shape[1])
    for number, channel in enumerate(sample.numpy()):
        down = (1.0 - channel) * (height - 5) + 2
        points = [(float(x), float(y)) for x, y in zip(across, down, strict=True)]
        pen.line(points if len(points) > 1 else points * 2, fill=COLOURS[number % len(COLOURS)], width=2)
    return cell


def _field(sample: Tensor, side: int = SIDE) -> Image.Image:
    """(C, H, W) in [0, 1] -> grey, or colour where there are three channels."""
    pixels = sample if sample.shape[0] == 3 else sample[:1].expand(3, -1, -1)
    array = pixels.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    times = max(1, side // max(array.shape[:2]))
    return Image.fromarray(array).resize((array.shape[1] * times, array.shape[0] * times), Image.Resampling.NEAREST)


def _volume(sample: Tensor) -> Image.Image:
    """(C, D, H, W) in [0, 1] -> slices of the first axis, evenly spaced."""
    depth = sample.shape[1]
    places = np.linspace(0, depth - 1, min(depth, SLICES)).round().astype(int)
    return sheet([_field(sample[:, int(place)], SIDE // 2) for place in places], columns=len(places), gap=1)
