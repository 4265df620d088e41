"""Measurements are linear, their transposes and solutions are right, and they do what others' code does."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from tests.refusals import refused
from zoo.guidance.measurement import Blurred, Downsampled, Masked
from zoo.schema.errors import ConfigError, UsageError

SHAPE = (2, 8, 12)
KNOWN = torch.zeros(1, 1, 8, 12)
KNOWN[..., 3:, :7] = 1.0
OPERATORS = {
    "masked": Masked().bind(SHAPE, KNOWN),
    "downsampled": Downsampled(factor=2).bind(SHAPE),
    "blurred": Blurred(deviation=1.3).bind(SHAPE),
}
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def matrix(operator):
    """H as a matrix (measured numbers, numbers of a sample)."""
    basis = torch.eye(int(np.prod(SHAPE)), dtype=torch.float64).reshape(-1, *SHAPE)
    return operator(basis).flatten(1).T


@each_operator
def test_transpose_and_solution_are_those_of_the_matrix(operator):
    h = matrix(operator)
    x, y = draw(1, *SHAPE), operator(draw(1, *SHAPE, seed=1))
    torch.testing.assert_close(operator(x).flatten(), h @ x.flatten())
    torch.testing.assert_close(operator.transpose(y).flatten(), h.T @ y.flatten())
    both = h @ h.T
    solved = torch.linalg.solve(0.7 * both + 0.2 * torch.eye(len(h), dtype=torch.float64), y.flatten())
    torch.testing.assert_close(operator.solve(y, 0.7, 0.2).flatten() * (solved != 0), solved)
    measured = both.diagonal() > 0.0
    assert operator.count == int(measured.sum())
    assert operator.gain == pytest.approx(float(both.diagonal()[measured].mean()))


@pytest.mark.parametrize("deviation", [0.8, 2.0, 5.0])
def test_blurring_is_scipys_with_mirrored_edges(deviation):
    x = draw(1, 1, 9, 14)
    theirs = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), deviation, mode="reflect", truncate=4.0)
    ours = Blurred(deviation=deviation).bind((1, 9, 14))(x)[0, 0].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=1e-12)


def test_downsampling_is_the_mean_of_squares():
    ours = Downsampled(factor=4).bind((1, 8, 8))(draw(1, 1, 8, 8))
    np.testing.assert_allclose(ours[0, 0], draw(8, 8).reshape(2, 4, 2, 4).mean((1, 3)), atol=1e-12)


@each_operator
def test_float32_stays_float32(operator):
    y = operator(draw(1, *SHAPE).float())
    assert {y.dtype, operator.transpose(y).dtype, operator.solve(y, 0.5, 0.1).dtype} == {torch.float32}


def test_what_cannot_be_measured_is_told():
    with refused("mask-missing"):
        Masked().bind(SHAPE)
    with refused("size-indivisible", UsageError, naming="3x3"):
        Downsampled(factor=3).bind(SHAPE)
    with refused("number-out-of-range", ConfigError):
        Downsampled(factor=0)
    with refused("number-out-of-range", ConfigError, naming="deviation"):
        Blurred(deviation=0.0)
