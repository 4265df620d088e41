"""The sample space of signals, fields and volumes: arrays in the data's own units, and an image to view them.

Arrays are not clipped: a signal may overshoot the range of its data, and clipping would distort it. Images of arrays
show `values[0]` to `values[1]`, and clip what lies outside.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from zoo.images.display import images_html
from zoo.images.space import sheet
from zoo.records.reading import RECORD_KEY
from zoo.schema.errors import ConfigError, UsageError, ZooError
from zoo.schema.files import atomic
from zoo.schema.names import array_targets
from zoo.schema.npy import read_npy

if TYPE_CHECKING:
    from torch import Tensor

MOST_PLACES = 2**26  # of a sample, over all axes
SHOWN = 16  # samples in an image
SLICES = 8  # of a volume
SIGNAL = (192, 96)  # width and height of a signal's cell
SIDE = 96  # pixels that a field is enlarged to, at most, and a slice of a volume to half of that
NO_IMAGES = "what this pipeline draws are arrays, not pictures; read .arrays or .numpy, or .view for a look"
COLOURS = ("#2f6fb7", "#e2843b", "#2f9e77", "#a24fa8")


@dataclass(frozen=True)
class Arrays:
    """Signals, fields or volumes (B, C, *spatial): `extent` is each axis' length, `values` what -1 and 1 mean."""

    feeds: ClassVar[str] = "array"
    word: ClassVar[str] = "arrays"
    value: ClassVar[str] = "value"
    default_file: ClassVar[str] = "out.npy"
    size_words: ClassVar[tuple[str, int | None]] = ("the length of each axis, like 128 or 8x16x16", None)

    extent: tuple[int, ...]
    values: tuple[float, float] = (-1.0, 1.0)

    @staticmethod
    def of_block(stage: Mapping[str, Any]) -> Arrays:
        """The space of a stage's block."""
        size, values = stage.get("size"), stage.get("values") or [-1.0, 1.0]
        if not isinstance(size, list) or not all(isinstance(s, int) for s in size):
            raise UsageError("it states no length of each axis", code="size-missing")
        if not isinstance(values, list) or len(values) != 2 or not all(isinstance(v, (int, float)) for v in values):
            raise UsageError("it states no two values that -1 and 1 stand for", code="values-range-missing")
        return Arrays(tuple(size), (float(values[0]), float(values[1])))

    @property
    def side(self) -> int:
        """UsageError: arrays have no side."""
        raise UsageError(
            "this pipeline draws arrays, and what is wanted here are images; give another pipeline",
            code="images-wanted",
        )

    def lengths(self, size: Any, *, stage: str, multiple: int, dims: int | None) -> tuple[int, ...]:
        """The length of each axis; UsageError for those that the network can't draw."""
        wanted = self.extent if size is None else (size,) if isinstance(size, int) else tuple(size)
        said = "x".join(str(s) for s in wanted)
        dims = len(self.extent) if dims is None else dims
        if len(wanted) != dims:
            like = "x".join(str(s) for s in self.extent)
            raise UsageError(
                f"stage '{stage}' can't do the size {said}: its network is of {dims} axes and that has "
                f"{len(wanted)}; give one length an axis, like {like}",
                code="array-axes-unfit",
            )
        if any(isinstance(s, bool) or not isinstance(s, int) or s < 1 or s % multiple for s in wanted):
            raise UsageError(
                f"stage '{stage}' can't do the size {said}: the length of each axis must be a multiple of {multiple}",
                code="size-indivisible",
            )
        if math.prod(wanted) > MOST_PLACES:
            raise UsageError(
                f"stage '{stage}' can't do the size {said}: a sample has at most {MOST_PLACES} places",
                code="size-invalid",
            )
        return wanted

    def check_pipeline(self, stage: str, *, stages: int, safety: Any, guidance: Iterable[Any]) -> None:
        """Refuse other stages, and what works on images."""
        if stages > 1:
            raise ConfigError(
                f"stage '{stage}' draws arrays and stands alone; take the other stages out",
                code="array-stage-not-alone",
            )
        if safety is not None:
            raise ConfigError(
                f"stage '{stage}' draws arrays and safety checks pictures; take safety out", code="array-part-unfit"
            )
        for one in guidance:
            if getattr(one, "pictures", False):
                name = type(one).__name__
                raise ConfigError(
                    f"stage '{stage}' draws arrays and {name} works on pictures; take it out", code="array-part-unfit"
                )

    def check_call(self, stage: str, **given: Any) -> None:
        """Refuse an image, a mask and a strength."""
        what = next((name for name, value in given.items() if value is not None), None)
        if what is not None:
            raise UsageError(
                f"stage '{stage}' draws arrays, from noise alone; leave the {what} out", code="array-start-unfit"
            )

    def finish(self, decoded: Tensor) -> Tensor:
        """[-1, 1] -> the data's units, not clipped."""
        low, high = self.values
        return decoded * ((high - low) / 2) + (high + low) / 2

    def images(self, drawn: Tensor) -> Tensor:
        """UsageError: arrays are not images."""
        raise UsageError(NO_IMAGES, code="images-wanted")

    def arrays(self, drawn: Tensor) -> Tensor:
        """The arrays, as they are."""
        return drawn

    def view(self, drawn: Tensor) -> Image.Image:
        """An image of the first samples: signals as lines, fields in grey, volumes as slices side by side."""
        return view(drawn, self.values)

    def said(self, drawn: Tensor) -> str:
        """Their shape and values."""
        return f"arrays={tuple(drawn.shape)}, values={self.values}"

    def html(self, drawn: Tensor, record: Mapping[str, Any]) -> str:
        """The view, with a caption."""
        return images_html([self.view(drawn)], [self.said(drawn)])

    def size_note(self, size: Any, who: str) -> str | None:
        """None: networks of arrays are measured at their own size only."""
        return None

    def targets(
        self, path: str | Path, count: int, *, grid: bool = False, overwrite: bool = False
    ) -> list[Path]:  # fmt: skip
        """The files that arrays would be saved to under `path`; see `save`."""
        return array_targets(path, grid=grid, overwrite=overwrite)

    def save(
        self, drawn: Tensor, record: Mapping[str, Any], path: str | Path, *, grid: bool = False, overwrite: bool = False
    ) -> list[Path]:  # fmt: skip
        """Write all arrays as one file, and return the files.

        NAME.npy is a file of float32 (B, C, *spatial), with the record beside it in NAME.json and, with `grid`, an
        image in NAME.png; NAME.png alone is the image, with the record inside. Any other path is a folder, and gets
        samples.npy, samples.json and samples.png, or samples-1.npy, ... where those exist, unless `overwrite`.
        """
        files = self.targets(path, len(drawn), grid=grid, overwrite=overwrite)
        array = np.ascontiguousarray(drawn.numpy(), dtype=np.float32)
        about = {
            "shape": list(array.shape), "dtype": str(array.dtype), "values": list(self.values),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }  # fmt: skip
        whole = {**record, "array": about}
        write: dict[str, Callable[[Any], Any]] = {
            ".npy": lambda file: np.save(file, array, allow_pickle=False),
            ".json": lambda file: file.write((json.dumps(whole, indent=1) + "\n").encode()),
            ".png": lambda file: file.write(_png(self.view(drawn), whole)),
        }
        for file in files:
            _write(file, write[file.suffix.lower()])
        return files

    def write(self, drawn: Tensor, record: Mapping[str, Any], file: BinaryIO, *, grid: bool = False) -> None:
        """Write all arrays into an open binary file as an .npy, or with `grid` an image of them with the record."""
        if grid:
            file.write(_png(self.view(drawn), record))
        else:
            np.save(file, np.ascontiguousarray(drawn.numpy(), dtype=np.float32), allow_pickle=False)

    def pictures(self, drawn: Tensor, record: Mapping[str, Any]) -> list[Image.Image]:
        """UsageError: arrays are not images."""
        raise UsageError(NO_IMAGES, code="images-wanted")

    def read(self, path: str | Path) -> np.ndarray:
        """(B, C, *spatial) of an .npy."""
        if Path(path).suffix.lower() != ".npy":
            raise UsageError(
                f"'{path}' is a picture of arrays; give the .npy of the same run", code="array-picture-given"
            )
        return read_npy(Path(path))

    def file_lengths(self, count: int) -> tuple[int, ...]:
        """(B, *spatial)."""
        return count, *self.extent

    def file_lengths_of(self, file: np.ndarray) -> tuple[int, ...]:
        """(B, *spatial)."""
        return file.shape[0], *file.shape[2:]

    def as_file(self, drawn: Tensor) -> np.ndarray:
        """(B, C, *spatial)."""
        return drawn.numpy()

    def steps(self, file: np.ndarray) -> np.ndarray:
        """float64, in 255ths of `values`."""
        return file.astype(np.float64) * (255.0 / (self.values[1] - self.values[0]))


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
        raise ZooError(
            f"'{path}' can't be written: {error.strerror or error}; choose another place", code="output-unwritable"
        ) from error


def view(arrays: Tensor, values: Sequence[float]) -> Image.Image:
    """(B, C, *spatial), of one to three axes -> an image of the first samples, values[0] dark or at the bottom."""
    low, high = values
    shown = ((arrays[:SHOWN].detach().float().cpu() - low) / (high - low)).clamp(0, 1)
    draw = {1: _signal, 2: _field, 3: _volume}.get(arrays.ndim - 2)
    if draw is None:
        raise UsageError(
            f"arrays of shape {tuple(arrays.shape)} can't be shown; give (B, C) and one to three axes",
            code="array-shape-wrong",
        )
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
    array = pixels.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    times = max(1, side // max(array.shape[:2]))
    return Image.fromarray(array).resize((array.shape[1] * times, array.shape[0] * times), Image.Resampling.NEAREST)


def _volume(sample: Tensor) -> Image.Image:
    """(C, D, H, W) in [0, 1] -> slices of the first axis, evenly spaced."""
    depth = sample.shape[1]
    places = np.linspace(0, depth - 1, min(depth, SLICES)).round().astype(int)
    return sheet([_field(sample[:, int(place)], SIDE // 2) for place in places], columns=len(places), gap=1)
