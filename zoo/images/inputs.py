"""What callers give as an image or a mask: paths, bytes, open files, PIL images, arrays, and lists of them.

Images are returned as RGB on white in [-1, 1], cropped around their centre and resized to the requested size. A mask is
white where the image is drawn anew: its luminance times its alpha, at its own resolution, so that thin parts survive
being made smaller.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from zoo.images.decode import (
    LARGEST_FILE,
    LARGEST_PICTURE,
    STARTS_PROGRAMS,
    bytes_of,
    check_size,
    eight_bits,
    on_white,
    open_picture,
    read_file,
)
from zoo.schema.errors import UsageError

KINDS = "a path, bytes, an open file, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4)"
HALF = 127  # a mask's values above it are white


def read_image(image: Any, *, size: tuple[int, int], count: int, each: int = 1) -> Tensor:
    """An image, or a list of one a prompt -> images (count, 3, *size) in [-1, 1].

    Args:
        image: as `KINDS` says, or a tensor (3, H, W) or (B, 3, H, W) of that size already, in [0, 1] or uint8.
        count: samples of the call; each: samples a prompt.
    """
    if isinstance(image, Tensor):
        found = _from_tensor(image, size, count)
    elif isinstance(image, (list, tuple)):
        if not image:
            raise UsageError("the list of images is empty; give one image, or one a prompt", code="image-missing")
        found = torch.cat([read_image(one, size=size, count=1) for one in image])
    else:
        picture = on_white(opened(image, "image"))
        array = np.asarray(_fit(picture, size), dtype=np.float32).transpose(2, 0, 1)
        found = torch.from_numpy(array / 127.5 - 1.0)[None]
    if len(found) in (1, count):
        return found.expand(count, -1, -1, -1)
    if len(found) * each != count:
        raise UsageError(
            f"{len(found)} images for {count // each} prompts; give one, or one a prompt", code="counts-differ"
        )
    return found.repeat_interleave(each, dim=0)


def _from_tensor(image: Tensor, size: tuple[int, int], count: int) -> Tensor:
    given = image.dtype
    image = _plain(image, "image")
    batch = image if image.ndim == 4 else image[None]
    if batch.shape[1:] != (3, *size):
        raise UsageError(
            f"the image tensor has shape {tuple(image.shape)}; give (3, {size[0]}, {size[1]}) "
            f"or ({count}, 3, {size[0]}, {size[1]}), values in [0, 1]",
            code="image-shape-wrong",
        )
    if batch.dtype == torch.uint8:
        return batch.float() / 127.5 - 1.0
    if not (given.is_floating_point or given == torch.bool):
        raise UsageError(
            f"the image tensor is of {str(given).removeprefix('torch.')}, whose range nothing shows; give uint8, bool, "
            "or floats in [0, 1]",
            code="image-values-wrong",
        )
    low, high = float(batch.min()), float(batch.max())
    if not (low >= 0.0 and high <= 1.0):  # the way round also refuses NaN
        raise UsageError(
            f"the image tensor has values from {low:.3g} to {high:.3g}; give values in [0, 1], or uint8",
            code="image-values-wrong",
        )
    return batch * 2 - 1


def read_mask(mask: Any, *, size: tuple[int, int]) -> Tensor:
    """An image as `KINDS` says, or a tensor (H, W) -> (1, 1, *size) of 0 and 1, where 1 (white) is drawn anew."""
    if isinstance(mask, Tensor):
        found = _mask_tensor(mask, size)
    elif isinstance(mask, (list, tuple)):
        raise UsageError(
            f"the mask is a list of {len(mask)}; give one mask for all images of a call", code="mask-unfit"
        )
    else:
        found = _shrunk(_whiteness(opened(mask, "mask")), size)
    if not bool(found.any()):
        raise UsageError(
            "the mask is black all over: nothing would be drawn; make the part to redraw white", code="mask-unfit"
        )
    return found[None, None]


def _mask_tensor(mask: Tensor, size: tuple[int, int]) -> Tensor:
    mask = _plain(mask, "mask")
    flat = mask.reshape(mask.shape[-2:]) if mask.ndim >= 2 and mask.numel() == mask.shape[-1] * mask.shape[-2] else mask
    if tuple(flat.shape) != size:
        raise UsageError(
            f"the mask tensor has shape {tuple(mask.shape)}; give ({size[0]}, {size[1]})", code="mask-unfit"
        )
    values = flat.float()
    low, high = float(values.min()), float(values.max())
    # Whole numbers go up to 255 where they are 8-bit, and up to 1 where they are truth values.
    top = 255.0 if mask.dtype == torch.uint8 and high > 1.0 else 1.0
    if not (low >= 0.0 and high <= top):
        raise UsageError(
            f"the mask tensor has values from {low:.3g} to {high:.3g}; give values in [0, 1], or uint8",
            code="image-values-wrong",
        )
    return (values > top / 2).float()


def read_depth(depth: Any, *, size: tuple[int, int]) -> Tensor:
    """A depth map, its largest value nearest: an image as `KINDS` says (its luminance), or a tensor of (H, W) numbers.

    -> (1, 1, *size) from -1, its least, to 1, its largest.
    """
    if isinstance(depth, Tensor):
        found = _plain(depth, "depth map").float()
        found = found.reshape(found.shape[-2:]) if found.numel() == found.shape[-1] * found.shape[-2] else found
    elif isinstance(depth, (list, tuple)):
        raise UsageError(
            f"the depth map is a list of {len(depth)}; give one for all images of a call", code="depth-unfit"
        )
    else:
        picture = opened(depth, "depth map")
        deep = picture.mode.startswith(("I", "F"))  # more than eight bits
        found = torch.from_numpy(np.array(picture if deep else on_white(picture).convert("L"), dtype=np.float32))
    if found.ndim != 2 or not bool(torch.isfinite(found).all()) or bool(found.min() == found.max()):
        raise UsageError(
            f"the depth map has shape {tuple(found.shape)} and the same value all over, or one that is no number; give "
            "(H, W) numbers, the largest nearest",
            code="depth-unfit",
        )
    if tuple(found.shape) != size:
        found = F.interpolate(found[None, None], size, mode="bicubic", align_corners=False)[0, 0]
    return standardised(found[None, None])


def standardised(depth: Tensor) -> Tensor:
    """(B, 1, H, W) -> each from -1 to 1."""
    low, high = depth.amin(dim=(1, 2, 3), keepdim=True), depth.amax(dim=(1, 2, 3), keepdim=True)
    return 2.0 * (depth - low) / (high - low) - 1.0


def _whiteness(picture: Image.Image) -> np.ndarray:
    """(H, W) bool: luminance times alpha above one half."""
    alpha = None
    # Alpha that was multiplied in already is taken out again; Pillow turns LAB and La into one mode only.
    apart = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode)
    picture = picture.convert(apart) if apart else on_white(picture) if picture.mode == "LAB" else picture
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = np.asarray(picture.getchannel("A"), dtype=np.float32) / 255.0
    values = np.asarray(picture.convert("L"), dtype=np.float32)
    if values.size and values.max() == 1.0:
        values = values * 255.0  # truth values, written as 1 and 0
    return (values if alpha is None else values * alpha) > HALF


def _shrunk(white: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(H, W) bool -> (*size) of 0 and 1: made smaller, a place is white where any of it is."""
    picture = _fit(Image.fromarray(white.astype(np.uint8) * 255), size, mask=True)
    return torch.from_numpy((np.asarray(picture) > 0).astype(np.float32))


def hash_of(tensor: Tensor) -> str:
    """SHA-256 of a tensor's float32 values, for the record."""
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """(1, 1, H, W) -> (1, 1, h, w): a latent position is drawn anew where any of its pixels is."""
    return F.max_pool2d(mask, factor)


def opened(source: Any, what: str) -> Image.Image:
    """Any one thing of `KINDS` as an image, upright, of 8 bits a channel."""
    if isinstance(source, Image.Image):
        return _from_pil(source, what)
    if isinstance(source, np.ndarray):
        return _from_array(source, what)
    if isinstance(source, (str, os.PathLike)):
        return open_picture(read_file(Path(source), what=what), name=str(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return open_picture(bytes(source), name=f"the {what}'s bytes")
    if callable(getattr(source, "read", None)):
        name = str(getattr(source, "name", f"the {what}'s file"))
        data = _all_of(source, name)
        if len(data) > LARGEST_FILE:
            raise UsageError(
                f"{name} has more bytes than are read, at most {LARGEST_FILE}; make it smaller", code="file-too-large"
            )
        return open_picture(data, name=name)
    raise UsageError(f"the {what} is {type(source).__name__}; give {KINDS}, or a tensor", code="image-type-wrong")


def _from_pil(source: Image.Image, what: str) -> Image.Image:
    """An image of the caller's, which may be decoded only now."""
    if 0 in source.size:
        raise UsageError(
            f"the {what} has {source.width} x {source.height} pixels; give one with some", code="image-empty"
        )
    check_size(source, f"the {what}")
    if source.format in STARTS_PROGRAMS:
        raise UsageError(
            f"the {what} is {source.format}, which other programs draw; give its convert('RGB')",
            code="image-format-unread",
        )
    try:
        source.load()
        upright = ImageOps.exif_transpose(source)
    except Exception as error:  # its file is cut short, or closed
        raise UsageError(
            f"the {what} can't be read: {error}; open it again, or give its path", code="image-damaged"
        ) from error
    return eight_bits(upright, f"the {what}")


def _all_of(source: Any, name: str) -> bytes:
    """The bytes of an open file from where it stands, some over `LARGEST_FILE` at most; a read may give fewer.

    One that stands at its end, as what was just written does, is read from its beginning.
    """
    data = _rest_of(source, name)
    if not data and callable(getattr(source, "seek", None)):
        with contextlib.suppress(Exception):  # a pipe, and whatever a caller's own object raises
            source.seek(0)
            data = _rest_of(source, name)
    return data


def _rest_of(source: Any, name: str) -> bytes:
    data, whole = bytearray(), False
    while len(data) <= LARGEST_FILE and not whole:
        try:
            try:
                part = source.read(LARGEST_FILE + 1 - len(data))
            except TypeError:  # one whose read takes no size gives all there is
                part, whole = source.read(), True
        except Exception as error:  # closed, open for writing, or a lost connection
            raise UsageError(f"{name} can't be read: {error}; open it with 'rb'", code="file-unreadable") from error
        if not isinstance(part, (bytes, bytearray)):
            raise UsageError(
                f"{name} gives {type(part).__name__} and not bytes; open it with 'rb'", code="file-unreadable"
            )
        if not part:
            break
        data += part
    return bytes(data)


def _plain(tensor: Tensor, what: str) -> Tensor:
    """The values of a tensor on the CPU, 8 bits as they are, others float32; UsageError if they aren't numbers."""
    known = tensor.dtype == torch.bool or not (tensor.is_complex() or tensor.is_quantized)
    if tensor.is_nested or tensor.is_meta or tensor.layout != torch.strided or not known or tensor.numel() == 0:
        raise UsageError(
            f"the {what} tensor holds no plain numbers; give a dense one of values in [0, 1], or uint8",
            code="image-values-wrong",
        )
    values = tensor.detach().cpu()
    return values if values.dtype == torch.uint8 else values.float()


def check_frames(image: Image.Image, mask: Image.Image) -> None:
    """UsageError for a mask of another shape than its image: each is cropped around its own centre."""
    apart = abs(image.width * mask.height - mask.width * image.height)
    if apart > max(image.width, image.height, mask.width, mask.height):  # more than a pixel's rounding
        raise UsageError(
            f"the mask is {mask.width}x{mask.height} and the image {image.width}x{image.height}, another shape, so its "
            "white would lie elsewhere; give a mask of the image's shape",
            code="mask-unfit",
        )


def _from_array(values: np.ndarray, what: str) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or 0 in values.shape:
        more = "; (3, H, W) is a tensor's order: give torch.from_numpy(array)" if values.shape[:1] == (3,) else ""
        raise UsageError(
            f"the {what} array has shape {values.shape}; give (H, W), (H, W, 3) or (H, W, 4){more}",
            code="image-shape-wrong",
        )
    if values.shape[0] * values.shape[1] > LARGEST_PICTURE:
        raise UsageError(f"the {what} array has over {LARGEST_PICTURE} pixels; make it smaller", code="image-too-large")
    return Image.fromarray(np.ascontiguousarray(bytes_of(values, f"the {what} array")))


def _fit(picture: Image.Image, size: tuple[int, int], *, mask: bool = False) -> Image.Image:
    """Centre-crop to the aspect of (height, width) and resize to it."""
    height, width = size
    scale = max(width / picture.width, height / picture.height)
    crop_width, crop_height = max(1, round(width / scale)), max(1, round(height / scale))
    left, top = (picture.width - crop_width) // 2, (picture.height - crop_height) // 2
    picture = picture.crop((left, top, left + crop_width, top + crop_height))
    if picture.size == (width, height):
        return picture
    if not mask:
        return picture.resize((width, height), Image.Resampling.BICUBIC)
    if scale >= 1.0:
        return picture.resize((width, height), Image.Resampling.NEAREST)
    # An area's mean in 8 bits would round the share of a thin line down to nothing.
    mean = picture.convert("F").resize((width, height), Image.Resampling.BOX)
    return Image.fromarray((np.asarray(mean) > 1e-3).astype(np.uint8) * 255)
