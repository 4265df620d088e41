"""PSNR and SSIM against their definitions."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from tests.refusals import refused
from zoo.evaluation.metrics.reconstruction import psnr, ssim


def test_psnr_is_of_each_picture_and_then_averaged():
    truth = torch.zeros(2, 3, 4, 4)
    pictures = truth.clone()
    pictures[0] += 0.1
    pictures[1] += 0.01
    assert psnr(pictures, truth) == pytest.approx(30.0)
    assert psnr(truth, truth) == pytest.approx(100.0)


def test_ssim_of_flat_pictures_is_that_of_their_brightness():
    truth, pictures = torch.full((1, 3, 16, 16), 0.6), torch.full((1, 3, 16, 16), 0.2)
    expected = (2 * 0.6 * 0.2 + 1e-4) / (0.6**2 + 0.2**2 + 1e-4)
    assert ssim(pictures, truth) == pytest.approx(expected, rel=1e-6)
    assert ssim(truth, truth) == pytest.approx(1.0)


def test_ssim_agrees_with_the_formula_under_a_two_dimensional_window():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 1, 20, 17)), rng.random((2, 1, 20, 17))
    at = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(at, at) / at.sum() ** 2
    values = []
    for a, b in zip(x[:, 0], y[:, 0], strict=True):
        ma, mb, aa, bb, ab = (convolve2d(z, window, mode="valid") for z in (a, b, a * a, b * b, a * b))
        top = (2 * ma * mb + 0.0001) * (2 * (ab - ma * mb) + 0.0009)
        values.append((top / ((ma**2 + mb**2 + 0.0001) * (aa - ma**2 + bb - mb**2 + 0.0009))).mean())
    assert ssim(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(np.mean(values), rel=1e-12)


def test_pictures_that_cannot_be_compared_are_told():
    with refused("image-sizes-differ"):
        psnr(torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with refused("image-too-small", naming="11"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
