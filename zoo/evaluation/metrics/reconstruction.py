"""PSNR and SSIM of images and their references.

SSIM (Wang et al. 2004, eq. 13) with their constants: a Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01,
K2 = 0.03, each channel by itself, only where the whole window is inside the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.schema.errors import UsageError

WINDOW = 11  # pixels a side; smaller images have no SSIM
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # of a range of 1


def psnr(pictures: Tensor, truth: Tensor) -> float:
    """Mean over images (N, C, H, W) in [0, 1] of 10 log10(1 / mean squared error), in dB; at most 100."""
    _refuse_differences(pictures, truth)
    error = (pictures.double() - truth.double()).square().flatten(1).mean(1)
    return float((-10.0 * error.clamp(min=1e-10).log10()).mean())


def ssim(pictures: Tensor, truth: Tensor) -> float:
    """Mean over images (N, C, H, W) in [0, 1] of their structural similarity; 1 where they are equal."""
    _refuse_differences(pictures, truth)
    if min(pictures.shape[-2:]) < WINDOW:
        raise UsageError(
            f"SSIM needs pictures of {WINDOW} pixels a side or more, not {tuple(pictures.shape[-2:])}",
            code="image-too-small",
        )
    x, y = (p.double().flatten(0, 1)[:, None] for p in (pictures, truth))
    m_x, m_y = _blur(x), _blur(y)
    v_x, v_y, v_xy = _blur(x * x) - m_x * m_x, _blur(y * y) - m_y * m_y, _blur(x * y) - m_x * m_y
    alike = (2 * m_x * m_y + _C1) * (2 * v_xy + _C2) / ((m_x * m_x + m_y * m_y + _C1) * (v_x + v_y + _C2))
    return float(alike.mean())


def _blur(x: Tensor) -> Tensor:
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(place.square() / (-2.0 * _SIGMA**2))
    window = window / window.sum()
    return F.conv2d(F.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))


def _refuse_differences(pictures: Tensor, truth: Tensor) -> None:
    if pictures.ndim != 4 or pictures.shape != truth.shape:
        raise UsageError(
            f"pictures {tuple(pictures.shape)} and their truth {tuple(truth.shape)} must have one shape (N, C, H, W)",
            code="image-sizes-differ",
        )
