"""A decoder run by tiles: little memory at any size, and another image.

Tiles of latents that overlap by a quarter are decoded one by one and blended linearly where they overlap. Each norm and
attention sees its tile alone, so colours may differ between tiles. Sizes and blending are those of diffusers'
`AutoencoderKL.tiled_decode`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TILE = 64  # latents a side
OVERLAP = 0.25


def decode(decoder: Any, z: Tensor) -> Tensor:
    """Latents (B, z, h, w) -> images (B, C, h * f, w * f)."""
    factor = 2 ** (len(decoder.up) - 1)
    if max(z.shape[2:]) <= TILE:
        return decoder.whole(z)
    step, blended = int(TILE * (1 - OVERLAP)), int(TILE * factor * OVERLAP)
    kept = TILE * factor - blended
    before: list[Tensor] = []
    bands = []
    for top in range(0, z.shape[2], step):
        tiles: list[Tensor] = []
        for left in range(0, z.shape[3], step):
            tile = decoder.whole(z[:, :, top : top + TILE, left : left + TILE])
            if before:
                _blend(before[len(tiles)], tile, blended, dim=2)
            if tiles:
                _blend(tiles[-1], tile, blended, dim=3)
            tiles.append(tile)
        bands.append(torch.cat([tile[:, :, :kept, :kept] for tile in tiles], dim=3))
        before = tiles
    return torch.cat(bands, dim=2)


def _blend(before: Tensor, after: Tensor, extent: int, *, dim: int) -> None:
    """Fade from the end of one tile into the beginning of the next, in place."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    shape = [1, 1, 1, 1]
    shape[dim] = extent
    share = (torch.arange(extent, device=after.device) / extent).to(after.dtype).view(shape)
    old, new = before.narrow(dim, before.shape[dim] - extent, extent), after.narrow(dim, 0, extent)
    new.copy_(old * (1 - share) + new * share)
