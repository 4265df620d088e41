"""Images beside their references (zoo.evaluation.inputs.references says which), for PSNR and SSIM.

A pair's numbers are kept by shards as features are, and go the same way: `Pairs` stands among the extractors, and is
the one that sees two images at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.evaluation.metrics.reconstruction import WINDOW, psnr, ssim
from zoo.schema.errors import UsageError

NAME = "pixels"
LAYER = "pairs"  # columns: PSNR, SSIM, whether the sizes differ, whether SSIM's window doesn't fit
WIDTH = 4


class Pairs:
    """In the place of an extractor: PSNR and SSIM of each image and its reference."""

    name = NAME
    sha256 = hashlib.sha256(b"PSNR and SSIM of 8-bit RGB: zoo.evaluation.pairs/1").hexdigest()

    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """Raises: a single image has neither."""
        raise UsageError(
            "PSNR and SSIM are of pictures and those they stand for; there are no features of one alone",
            code="pairs-missing",
        )

    def compare(self, pictures: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
        """uint8 images (3, H, W) and as many true ones -> (N, 4), a row a pair."""
        rows = torch.zeros(len(pictures), WIDTH)
        for row, picture, true in zip(rows, pictures, truth, strict=True):
            if picture.shape != true.shape:
                row[2] = row[3] = 1.0
                continue
            x, y = picture[None] / 255.0, true[None] / 255.0
            row[0] = psnr(x, y)
            if min(picture.shape[1:]) < WINDOW:
                row[3] = 1.0
            else:
                row[1] = ssim(x, y)
        return rows
