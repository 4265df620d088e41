"""The Fréchet distance against closed forms, and PSNR against its definition."""

import math

import numpy as np
import pytest
import torch

from zoo.errors import NumericError, UsageError
from zoo.evaluation.frechet import distance_key, frechet_distance, psnr


def features(count=200, width=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, width)))


@pytest.mark.parametrize("count", [4, 200])  # fewer samples than features, and more
def test_equal_sets_are_at_distance_zero_and_moved_ones_at_the_square_of_the_move(count):
    x = features(count)
    assert frechet_distance(x, x) < 1e-6
    assert frechet_distance(x, x.flip(0) + 0.5) == pytest.approx(6 * 0.25, abs=1e-6)


def test_commuting_covariances_give_the_closed_form():
    x = features()
    x = x - x.mean(0)
    scale = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0, 0.1], dtype=torch.float64)
    root = torch.linalg.eigh(torch.cov(x.T))
    white = x @ root.eigenvectors / root.eigenvalues.sqrt()
    expected = float((scale - 1.0).square().sum())
    assert frechet_distance(white * scale, white) == pytest.approx(expected, rel=1e-9)


def test_general_covariances_agree_with_a_matrix_root():
    x, y = features(seed=1), features(seed=2) @ features(6, 6, seed=3)
    s1, s2 = (np.cov(a.numpy(), rowvar=False) for a in (x, y))
    values = np.linalg.eigvals(s1 @ s2)  # tr (S1 S2)^(1/2) by the eigenvalues of the product itself
    mean = x.mean(0) - y.mean(0)
    expected = float(mean @ mean) + np.trace(s1) + np.trace(s2) - 2 * np.sqrt(values.real).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)


def test_the_key_names_extractor_hash_and_count():
    assert distance_key("emoji-evaluator", "2125d3dcd3d14e9b", 64) == "fd[emoji-evaluator@2125d3dc]@64"


def test_too_few_or_spoilt_features_are_refused():
    with pytest.raises(UsageError, match="two samples"):
        frechet_distance(features(1), features())
    with pytest.raises(NumericError, match="NaN"):
        frechet_distance(features() * math.nan, features())


def test_psnr_is_of_each_picture_and_then_averaged():
    truth = torch.zeros(2, 3, 4, 4)
    pictures = truth.clone()
    pictures[0] += 0.1
    pictures[1] += 0.01
    assert psnr(pictures, truth) == pytest.approx(30.0)
    assert psnr(truth, truth) == pytest.approx(100.0)
