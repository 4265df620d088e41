"""The two resizings that Inception numbers are published with; each is part of a protocol's name.

| protocol | resizing |
|---|---|
| `tf1` | TensorFlow 1's bilinear: pixel i of the output looks at i * in / out (no half-pixel centres, no antialias) |
| `clean` | PIL's bicubic, antialiased, each channel by itself in float, clipped to [0, 255] and not rounded (Parmar et al. 2022) |
"""  # noqa: E501

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def resize_tf1(pictures: Tensor, size: int) -> Tensor:
    """(B, C, H, W) of any number type -> float32 (B, C, size, size), bilinear as TensorFlow 1 has it."""
    x = pictures.float()
    x = _mix(x, size, axis=3)
    return _mix(x, size, axis=2)


def _mix(x: Tensor, size: int, *, axis: int) -> Tensor:
    """Between each place's two neighbours along one axis; the last row looks at itself."""
    length = x.shape[axis]
    # Places in float32, as there: in float64 some would fall on the other side of a pixel.
    place = torch.arange(size, dtype=torch.float32, device=x.device)
    place = place * torch.tensor(length / size, dtype=torch.float32, device=x.device)
    below = place.long()
    share = (place - below.float()).view(-1, *[1] * (3 - axis))
    low, high = x.index_select(axis, below), x.index_select(axis, (below + 1).clamp_max(length - 1))
    return low + (high - low) * share


def resize_clean(pictures: Tensor, size: int) -> Tensor:
    """uint8 (B, C, H, W) -> float32 (B, C, size, size) in [0, 255], as clean-fid resizes."""
    shape = (*pictures.shape[:2], size, size)
    out = np.empty((shape[0] * shape[1], size, size), dtype=np.float32)
    for channel, into in zip(pictures.cpu().flatten(0, 1).float().numpy(), out, strict=True):
        resized = Image.fromarray(channel, mode="F").resize((size, size), Image.Resampling.BICUBIC)
        np.clip(np.asarray(resized), 0.0, 255.0, out=into)
    return torch.from_numpy(out.reshape(shape)).to(pictures.device)


def resize_uint8(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (B, 3, H, W) -> uint8 (B, 3, *size), PIL's bicubic, as timm's networks and CLIP preprocess images."""
    if tuple(pictures.shape[-2:]) == size:
        return pictures
    high, wide = size
    resized = [
        np.asarray(Image.fromarray(p).resize((wide, high), Image.Resampling.BICUBIC))
        for p in pictures.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(pictures.device)
