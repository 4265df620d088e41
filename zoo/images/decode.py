"""Bytes of an image to pixels: the one decoder, and what it refuses.

An image is hostile until decoded: its format is one of `FORMATS` (others start programs or are rare), its header is
checked against `LARGEST_PICTURE` before any pixel is made, PNG's checksums are verified (Pillow skips them), and
whatever a decoder raises becomes one sentence.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zoo.schema.errors import UsageError

LARGEST_FILE = 64 * 2**20  # bytes of one image or of the metadata
LARGEST_PICTURE = 64 * 10**6  # pixels
STARTS_PROGRAMS = ("EPS", "WMF", "EMF")  # formats whose pixels Pillow has another program make
BELIEVED = 64 * 2**20  # bytes of pixels that any image may have, however tightly it is packed
TIGHTEST = 200  # times smaller than its pixels that a larger one is believed to be packed
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PNG = b"\x89PNG\r\n\x1a\n"
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


def read_file(path: str | Path, *, what: str = "file", limit: int = LARGEST_FILE) -> bytes:
    """The bytes of a regular file; UsageError for a device, a pipe, a folder, or more than `limit` bytes."""
    try:
        # A pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise UsageError(f"the {what} '{path}' does not exist; give the path of one", code="file-missing") from error
    except (OSError, ValueError) as error:  # a NUL, or a name that is too long
        raise UsageError(
            f"the {what} '{path}' can't be read: {getattr(error, 'strerror', None) or error}", code="file-unreadable"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"the {what} '{path}' is no regular file; give the path of one", code="file-not-regular")
    try:
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:  # a bad block, a share that is gone
        raise UsageError(
            f"the {what} '{path}' can't be read: {error.strerror or error}; give another", code="file-unreadable"
        ) from error
    if len(data) > limit:
        raise UsageError(
            f"the {what} '{path}' has more bytes than are read, at most {limit}; make it smaller", code="file-too-large"
        )
    return data


def open_picture(
    data: bytes, *, name: str, where: str | None = None, deep: Literal["scale", "keep"] = "scale"
) -> Image.Image:
    """The decoded image, upright; UsageError naming the file where it isn't an image, or is too large.

    Args:
        where: the folder or archive that `name` is in.
        deep: what becomes of more than 8 bits a channel: scaled to 8 by their range, or left for the caller to refuse.
    """
    said = f"'{name}'" if where is None else f"'{name}' in '{where}'"
    try:
        check_chunks(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is ours
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            check_size(picture, said)
            _check_packing(picture, data, said)
            picture.load()
            _check_depth(picture, data, said)
            picture = ImageOps.exif_transpose(picture)
    except UsageError:
        raise
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"{said} has over {LARGEST_PICTURE} pixels; make it smaller", code="image-too-large"
        ) from error
    except UnidentifiedImageError as error:  # its own sentence holds an address in memory
        raise UsageError(
            f"{said} is not a picture of any format that is read: {', '.join(FORMATS)}", code="image-format-unread"
        ) from error
    except Exception as error:  # a decoder given hostile bytes may raise anything
        raise UsageError(
            f"{said} is not a picture: {error}; give one of {', '.join(FORMATS)}", code="image-damaged"
        ) from error
    return picture if deep == "keep" else eight_bits(picture, said)


def check_size(picture: Image.Image, said: str) -> None:
    """UsageError for more pixels than are read; none need have been made yet."""
    if picture.width * picture.height > LARGEST_PICTURE:
        raise UsageError(f"{said} has over {LARGEST_PICTURE} pixels; make it smaller", code="image-too-large")


def _check_packing(picture: Image.Image, data: bytes, said: str) -> None:
    """UsageError for a large image in next to no bytes: 180 kB unfold to 190 MB, which no real image does."""
    unfolded = picture.width * picture.height * 3
    if unfolded > BELIEVED and unfolded > TIGHTEST * len(data):
        raise UsageError(
            f"{said} unfolds from {len(data)} bytes to {picture.width}x{picture.height} pixels; make it smaller",
            code="image-too-large",
        )


def _check_depth(picture: Image.Image, data: bytes, said: str) -> None:
    """UsageError for colours of 16 bits of which Pillow keeps the upper 8, where those hold nothing and others may."""
    if picture.format == "PNG":
        depths: tuple[int, ...] = (data[24],)
    else:
        depths = tuple(getattr(picture, "tag_v2", {}).get(258, ()))  # TIFF's BitsPerSample
    if picture.mode in ("RGB", *TRANSPARENT) and 16 in depths:
        extrema: tuple[Any, ...] = picture.getextrema()
        if all(high == 0 for _, high in extrema):
            raise UsageError(
                f"{said} is black in the upper half of its 16 bits a channel; convert it to 8 bits",
                code="image-depth-unread",
            )


def check_chunks(data: bytes) -> None:
    """ValueError where a chunk of a PNG isn't what its checksum says: its pixels would be read all the same."""
    if not data.startswith(PNG):
        return
    place, view = len(PNG), memoryview(data)
    while place + 12 <= len(data):
        size = int.from_bytes(view[place : place + 4], "big")
        end = place + 8 + size
        kind = bytes(view[place + 4 : place + 8])
        if end + 4 > len(data):
            raise ValueError("it is cut short")
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"its part {kind.decode('latin-1')!r} is damaged (its checksum is another)")
        if kind == b"IEND":
            return
        place = end + 4
    raise ValueError("it is cut short")


def eight_bits(picture: Image.Image, said: str) -> Image.Image:
    """An image of at most 8 bits a channel: 16 bits and floats by their range, which is unknown for 32 bits."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bits(np.asarray(picture, dtype=np.uint16), said))
    if picture.mode == "I":
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise UsageError(
                f"{said} has whole numbers from {low} to {high} for pixels; convert it to 8 or 16 bits",
                code="image-values-wrong",
            )
        return Image.fromarray(_from_16_bits(values, said))
    if picture.mode == "F":
        return Image.fromarray(bytes_of(np.asarray(picture), said))
    return picture


def bytes_of(values: np.ndarray, said: str) -> np.ndarray:
    """Pixels of any kind of number as uint8: 0 to 255, 0 to 65535, True and False, or floats in [0, 1]."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if values.dtype.newbyteorder("=") == np.uint16:
        return _from_16_bits(values, said)
    if values.dtype.kind == "f":
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if low >= 0.0 and high <= 1.0:  # this way round also refuses NaN
            return np.round(values.astype(np.float64) * 255.0).astype(np.uint8)
        raise UsageError(
            f"{said} has values from {low:.4g} to {high:.4g}; give floats in [0, 1] or uint8", code="image-values-wrong"
        )
    raise UsageError(
        f"{said} has pixels of {values.dtype}; give uint8, uint16, bool, or floats in [0, 1]", code="image-values-wrong"
    )


def _from_16_bits(values: np.ndarray, said: str) -> np.ndarray:
    """Whole numbers up to 65535 as uint8; UsageError where they may be 8 bits, which would turn black."""
    high = int(values.max()) if values.size else 0
    if 0 < high <= 255:
        raise UsageError(
            f"{said} has values of at most {high} in 16 bits or more: scaled by 65535 they are black, and as 8 bits "
            "they are not; convert it to 8 bits, or multiply by 257",
            code="image-depth-unread",
        )
    return np.round(values / 257.0).astype(np.uint8)


def on_white(picture: Image.Image) -> Image.Image:
    """RGB, transparent parts on white."""
    if picture.mode in TRANSPARENT or "transparency" in picture.info:
        picture = picture.convert("LA") if picture.mode == "La" else picture  # which Pillow turns into nothing else
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    try:
        return picture.convert("RGB")
    except ValueError as error:  # LAB
        raise UsageError(
            f"an image in {picture.mode} can't be made RGB ({error}); convert it first", code="image-format-unread"
        ) from error


def centre_square(picture: Image.Image) -> Image.Image:
    """The largest square around the centre."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def scaled(picture: Image.Image, side: int) -> Image.Image:
    """The shorter side made `side` pixels: averaged over areas down, bicubic up."""
    short = min(picture.size)
    if short == side:
        return picture
    width, height = (max(side, round(length * side / short)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX if short > side else Image.Resampling.BICUBIC)


def to_array(picture: Image.Image) -> np.ndarray:
    """RGB -> uint8 (3, H, W)."""
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))


def to_square(picture: Image.Image, size: int) -> np.ndarray:
    """A PIL image -> uint8 (3, size, size) on white, centre-cropped, area-averaged down (bicubic up)."""
    return to_array(scaled(centre_square(on_white(picture)), size))
