"""Bytes of a picture to pixels: what every dataset reads with, and what it refuses.

A picture is hostile until decoded: its format is one of `FORMATS` (others start programs or are rare), its header is
held against `LARGEST_PICTURE` before any pixel is made, and whatever a decoder raises becomes one sentence.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from zoo.errors import UsageError

LARGEST_FILE = 64 * 2**20  # bytes of one picture or of the metadata
LARGEST_PICTURE = 64 * 10**6  # pixels
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def open_picture(data: bytes, *, name: str, where: str) -> Image.Image:
    """The decoded picture, upright; UsageError naming the file for what is no picture, or too large a one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit below is ours
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > LARGEST_PICTURE:
                raise UsageError(f"'{name}' in '{where}' has over {LARGEST_PICTURE} pixels; make it smaller")
            picture.load()
            return ImageOps.exif_transpose(picture)
    except UsageError:
        raise
    except Image.DecompressionBombError as error:
        raise UsageError(f"'{name}' in '{where}' has over {LARGEST_PICTURE} pixels; make it smaller") from error
    except Exception as error:  # a decoder given hostile bytes may raise anything
        raise UsageError(f"'{name}' in '{where}' is not a picture: {error}") from error


def on_white(picture: Image.Image) -> Image.Image:
    """RGB, transparent parts on white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


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
    """A PIL picture -> uint8 (3, size, size) on white, centre-cropped, area-averaged down (bicubic up)."""
    return to_array(scaled(centre_square(on_white(picture)), size))
