"""How a stage starts and what it holds on to: from noise, from a picture, or around the known part of one.

| task | the run starts | and on the way |
|---|---|---|
| text to image | at t = 1, from noise | |
| image to image | at t = strength, from the noised picture (SDEdit: Meng et al. 2022) | |
| inpainting | at t = strength (1 by default) | x0 is known outside the mask (`zoo.guidance.mask`) |
| a measured picture | at t = 1, from noise | samples are held to it (`zoo.guidance.posterior`) |
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from zoo.errors import UsageError

LARGEST_PICTURE = 64 * 10**6  # pixels


def _open(source: Any, what: str) -> Image.Image:
    if isinstance(source, Image.Image):
        picture = source
    else:
        try:
            picture = Image.open(Path(source))
            if picture.width * picture.height > LARGEST_PICTURE:
                raise UsageError(f"the {what} '{source}' has over {LARGEST_PICTURE} pixels; make it smaller first")
            picture.load()
        except FileNotFoundError as error:
            raise UsageError(f"the {what} '{source}' does not exist") from error
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise UsageError(f"the {what} '{source}' can't be read as a picture: {error}") from error
    return picture


def _fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Centre-crop to the aspect of (height, width) and resize to it."""
    height, width = size
    scale = max(width / picture.width, height / picture.height)
    crop_width, crop_height = round(width / scale), round(height / scale)
    left, top = (picture.width - crop_width) // 2, (picture.height - crop_height) // 2
    picture = picture.crop((left, top, left + crop_width, top + crop_height))
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BICUBIC)


def read_image(image: Any, *, size: tuple[int, int], count: int) -> Tensor:
    """A path, PIL picture, or tensor (3 or B, 3, H, W) in [0, 1] -> images (count, 3, *size) in [-1, 1].

    Pictures are cropped around their centre and resized; transparent parts are laid on white. A tensor must have the
    size already, and one row or `count`.
    """
    if isinstance(image, Tensor):
        batch = image if image.ndim == 4 else image[None]
        if batch.shape[1:] != (3, *size) or batch.shape[0] not in (1, count):
            raise UsageError(
                f"the image tensor has shape {tuple(image.shape)}; give (3, {size[0]}, {size[1]}) "
                f"or ({count}, 3, {size[0]}, {size[1]}), values in [0, 1]"
            )
        low, high = float(batch.min()), float(batch.max())
        if not (low >= 0.0 and high <= 1.0):  # the way round also refuses NaN
            raise UsageError(f"the image tensor has values from {low:.3g} to {high:.3g}; give values in [0, 1]")
        return (batch.float() * 2 - 1).expand(count, -1, -1, -1)
    picture = _open(image, "image").convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    array = np.asarray(_fit(picture, size), dtype=np.float32).transpose(2, 0, 1)
    return torch.from_numpy(array / 127.5 - 1.0).expand(count, -1, -1, -1)


def read_mask(mask: Any, *, size: tuple[int, int]) -> Tensor:
    """A path, PIL picture or tensor (H, W) -> (1, 1, *size) of 0 and 1, where 1 (white) is to be drawn anew."""
    if isinstance(mask, Tensor):
        flat = mask.reshape(mask.shape[-2:]) if mask.numel() == mask.shape[-1] * mask.shape[-2] else mask
        if tuple(flat.shape) != size:
            raise UsageError(f"the mask tensor has shape {tuple(mask.shape)}; give ({size[0]}, {size[1]})")
        found = (flat.float() > 0.5).float()
    else:
        picture = _open(mask, "mask").convert("L")
        found = torch.from_numpy((np.asarray(_fit(picture, size)) > 127).astype(np.float32))
    if not bool(found.any()):
        raise UsageError("the mask is black all over: nothing would be drawn; make the part to redraw white")
    return found[None, None]


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """(1, 1, H, W) -> (1, 1, h, w): a latent position is drawn anew where any of its pixels is."""
    return F.max_pool2d(mask, factor)


def hash_of(tensor: Tensor) -> str:
    """SHA-256 of a tensor's float32 values, for the record."""
    return hashlib.sha256(tensor.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
