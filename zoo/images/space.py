"""Images as a sample space: pixels in [0, 1], PIL, PNG with the record inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zoo.images.decode import LARGEST_PICTURE, open_picture, read_file
from zoo.images.display import captions, images_html
from zoo.records.reading import RECORD_KEY, record_of
from zoo.schema.errors import UsageError, ZooError
from zoo.schema.files import atomic
from zoo.schema.names import targets

if TYPE_CHECKING:
    from torch import Tensor

GAP = 4  # white pixels between the images of a sample grid


class Drawn(Image.Image):
    """A PIL image with its record, which `save` writes into a PNG, in files and buffers alike; copies are plain."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As PIL's; `pnginfo` takes the record's place."""
        if "pnginfo" not in params and RECORD_KEY in self.info:
            params["pnginfo"] = PngInfo()
            params["pnginfo"].add_itxt(RECORD_KEY, self.info[RECORD_KEY])
        super().save(fp, format=format, **params)


def with_record(image: Image.Image, record: Mapping[str, Any]) -> Image.Image:
    """The image with its record, where PIL has that of a PNG which it opened."""
    image.__class__ = Drawn
    image.info[RECORD_KEY] = json.dumps(record)
    return image


def to_pil(tensor: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] -> PIL, rounded to nearest."""
    return Image.fromarray(tensor.mul(255).round_().byte().permute(1, 2, 0).cpu().numpy())


def sheet(images: Sequence[Image.Image], *, columns: int | None = None, gap: int = GAP) -> Image.Image:
    """Images of one size side by side on white."""
    width, height = images[0].size
    if columns is not None and (not isinstance(columns, int) or isinstance(columns, bool) or columns < 1):
        raise UsageError(f"columns is {columns!r}; give a whole number from 1 up", code="number-out-of-range")
    columns, sides = _sheet(len(images), (height, width), columns, gap)
    out = Image.new("RGB", (sides[1], sides[0]), "white")
    for i, image in enumerate(images):
        out.paste(image, ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return out


def _sheet(count: int, size: tuple[int, int], columns: int | None, gap: int) -> tuple[int, tuple[int, int]]:
    """How many columns a sheet of images of (height, width) has, and its own (height, width)."""
    columns = min(count, columns or max(1, round(count**0.5 + 0.49)))
    rows = -(-count // columns)
    return columns, (rows * (size[0] + gap) - gap, columns * (size[1] + gap) - gap)


@dataclass(frozen=True)
class Images:
    """Images (B, 3, H, W) of `size` pixels a side, or (height, width); a network sees [-1, 1], callers get [0, 1]."""

    feeds: ClassVar[str] = "image"  # what a stage alone, or the last one, feeds
    word: ClassVar[str] = "images"  # what samples are called
    value: ClassVar[str] = "value of every pixel"  # what a replay compares each of
    default_file: ClassVar[str] = "out.png"  # where a command writes to by default
    # How a command's size is written, and how many numbers it has at most.
    size_words: ClassVar[tuple[str, int | None]] = ("pixels a side, like 64, or HEIGHTxWIDTH, like 64x96", 2)

    size: int | tuple[int, int] = 64

    @staticmethod
    def of_block(stage: Mapping[str, Any]) -> Images:
        """The space of a stage's block."""
        size = stage.get("size")
        pixels = [size, size] if isinstance(size, int) else size
        if not isinstance(pixels, list) or len(pixels) != 2 or not all(isinstance(p, int) and p > 0 for p in pixels):
            raise UsageError("it states no size in pixels", code="size-missing")
        return Images(size if isinstance(size, int) else (pixels[0], pixels[1]))

    @property
    def side(self) -> int:
        """Pixels a side."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def values(self) -> tuple[float, float]:
        """What -1 and 1 of a network mean."""
        return 0.0, 1.0

    def lengths(self, size: Any, *, stage: str, multiple: int, dims: int | None) -> tuple[int, ...]:
        """(height, width); UsageError for one that the networks can't draw."""
        size = self.size if size is None else size
        wanted = (size, size) if isinstance(size, int) else tuple(size)
        if len(wanted) != 2:
            raise UsageError(
                f"stage '{stage}' draws images, and a size of {len(wanted)} numbers ({wanted}) is none of theirs; give "
                f"pixels a side, or height and width, like {self.side}x{self.side}",
                code="size-invalid",
            )
        if any(isinstance(s, bool) or not isinstance(s, int) or s < 1 or s % multiple for s in wanted):
            said = "x".join(str(s) for s in wanted)
            near = max(multiple, round(self.side / multiple) * multiple)
            raise UsageError(
                f"stage '{stage}' can't do the size {said}: height and width must be multiples of {multiple}, "
                f"like {near}",
                code="size-indivisible",
            )
        if wanted[0] * wanted[1] > LARGEST_PICTURE:
            raise UsageError(
                f"stage '{stage}' can't do the size {wanted[0]}x{wanted[1]}: images have at most {LARGEST_PICTURE} "
                f"pixels; choose a smaller one, like {self.side}",
                code="size-invalid",
            )
        return wanted

    def check_pipeline(self, stage: str, *, stages: int, safety: Any, guidance: Iterable[Any]) -> None:
        """Images exclude nothing."""

    def check_call(self, stage: str, **given: Any) -> None:
        """Nothing to refuse: image inputs, masks and enlarging are checked by the request."""

    def finish(self, decoded: Tensor) -> Tensor:
        """[-1, 1] -> [0, 1], clipped."""
        return (decoded * 0.5 + 0.5).clamp(0, 1)

    def images(self, drawn: Tensor) -> Tensor:
        """The images, as they are."""
        return drawn

    def arrays(self, drawn: Tensor) -> Tensor:
        """UsageError: images are not arrays in the data's units."""
        raise UsageError(
            "what this pipeline draws are images, not arrays; read .tensor or .images", code="arrays-wanted"
        )

    def view(self, drawn: Tensor) -> Image.Image:
        """All images in one sample grid."""
        return sheet([to_pil(image) for image in drawn])

    def said(self, drawn: Tensor) -> str:
        """How many, and how large."""
        return f"{len(drawn)} image{'s' if len(drawn) != 1 else ''} of {drawn.shape[-2]}x{drawn.shape[-1]}"

    def html(self, drawn: Tensor, record: Mapping[str, Any]) -> str:
        """The images with their prompts."""
        return images_html([to_pil(image) for image in drawn], captions(record, len(drawn)))

    def size_note(self, size: Any, who: str) -> str | None:
        """A note on a size that the network wasn't trained at; `who` names the network."""
        usual, wanted = (
            s if isinstance(s, tuple) else (s, s) for s in (self.size, self.size if size is None else size)
        )
        if wanted == usual:
            return None
        said, asked = ("x".join(str(s) for s in one) for one in (usual, wanted))
        return f"{who} learned images of {said}; at {asked} things may come out in pieces or several times"

    def targets(
        self, path: str | Path, count: int, *, grid: bool = False, overwrite: bool = False
    ) -> list[Path]:  # fmt: skip
        """The files that `count` images would be saved to under `path`; see `save`."""
        return targets(path, count, grid=grid, overwrite=overwrite)

    def save(
        self, drawn: Tensor, record: Mapping[str, Any], path: str | Path, *, grid: bool = False, overwrite: bool = False
    ) -> list[Path]:  # fmt: skip
        """Write the images, each with its record inside if it is a PNG, and return the files.

        A path that ends in an image format's suffix is a file: one image (or the sample grid, with `grid`) goes there,
        several become NAME-0.png, NAME-1.png, ... Any other path is a folder, made where missing,
        with 0000.png, 0001.png, ... Numbers go on after those that are there; with `overwrite` they begin again.
        """
        files = self.targets(path, len(drawn), grid=grid, overwrite=overwrite)
        pictures = [self.view(drawn)] if grid else [to_pil(image) for image in drawn]
        records = [dict(record)] if grid else [record_of(record, i) for i in range(len(files))]
        for file, picture, own in zip(files, pictures, records, strict=True):
            kind = Image.registered_extensions()[file.suffix.lower()]
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic(file) as place:
                    with_record(picture, own).save(place, format=kind)
            except OSError as error:
                raise ZooError(
                    f"'{file}' can't be written: {error.strerror or error}; choose another place",
                    code="output-unwritable",
                ) from error
        return files

    def write(self, drawn: Tensor, record: Mapping[str, Any], file: BinaryIO, *, grid: bool = False) -> None:
        """Write one image, or with `grid` all in one, into an open binary file as a PNG with its record."""
        if len(drawn) > 1 and not grid:
            raise UsageError(
                f"an open file holds one image, not {len(drawn)}; give grid=True, or a folder", code="counts-differ"
            )
        picture = self.view(drawn) if grid else to_pil(drawn[0])
        with_record(picture, dict(record) if grid else record_of(record, 0)).save(file, format="PNG")

    def pictures(self, drawn: Tensor, record: Mapping[str, Any]) -> list[Image.Image]:
        """The images, each with its record, which PIL writes into a PNG."""
        return [with_record(to_pil(image), record_of(record, i)) for i, image in enumerate(drawn)]

    def read(self, path: str | Path) -> np.ndarray:
        """(H, W, 3) uint8 of an image file."""
        try:
            picture = open_picture(read_file(path, what="picture"), name=str(path))
            if picture.width * picture.height > LARGEST_PICTURE:
                raise UsageError(
                    f"'{path}' has over {LARGEST_PICTURE} pixels, more than zoo's pictures", code="image-too-large"
                )
            return np.asarray(picture.convert("RGB"))
        except ZooError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = f"the picture '{path}' can't be read to its end: {error}; restore the whole file"
            raise UsageError(reason, code="image-damaged") from error

    def file_lengths(self, count: int) -> tuple[int, ...]:
        """(height, width) of a file of one image, or of a sheet."""
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if count == 1:
            return size
        if count * size[0] * size[1] > LARGEST_PICTURE:
            raise UsageError(f"it speaks of over {LARGEST_PICTURE} pixels", code="image-too-large")
        return _sheet(count, size, None, GAP)[1]

    def file_lengths_of(self, file: np.ndarray) -> tuple[int, ...]:
        """(height, width)."""
        return file.shape[:2]

    def as_file(self, drawn: Tensor) -> np.ndarray:
        """(H, W, 3) uint8: the image, or the sheet of several."""
        return np.asarray((to_pil(drawn[0]) if len(drawn) == 1 else self.view(drawn)).convert("RGB"))

    def steps(self, file: np.ndarray) -> np.ndarray:
        """uint8 is in 255ths already."""
        return file.astype(np.int16)


IMAGES = Images()  # of the default size


def share(whole: Sequence[int], part: int, of: int, name: str) -> tuple[int, ...]:
    """`whole` times part / of: the lengths of a stage of `part` pixels a side, where the last has `of`."""
    if any(s * part % of for s in whole):
        raise UsageError(
            f"the size {'x'.join(str(s) for s in whole)} leaves no whole pixels to stage '{name}', which has {part} "
            f"for {of}; use multiples of {of}",
            code="size-indivisible",
        )
    return tuple(s * part // of for s in whole)
