"""The Fréchet distance against closed forms and other ways to compute it."""

import math

import numpy as np
import pytest
import torch

from tests.refusals import refused
from zoo.evaluation.extractors.moments import Moments
from zoo.evaluation.metrics.frechet import distance_key, frechet_distance
from zoo.schema.errors import NumericError


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
    with refused("images-too-few"):
        frechet_distance(features(1), features())
    with refused("features-not-finite"):
        frechet_distance(features() * math.nan, features())


def gaussian_samples(count, width, scale, seed=0):
    """Samples whose own mean is 0 and covariance diag(scale^2), to rounding."""
    x = np.random.default_rng(seed).standard_normal((count, width))
    q, _ = np.linalg.qr(x - x.mean(axis=0))
    return q * np.sqrt(count - 1.0) * scale


def test_the_closed_form_of_diagonal_covariances_holds_to_1e_9_at_full_rank():
    width = 48
    one, other = np.linspace(0.1, 3.0, width), np.linspace(2.0, 0.5, width)
    move = np.linspace(-1.0, 1.0, width)
    x, y = gaussian_samples(200, width, one, seed=1) + move, gaussian_samples(300, width, other, seed=2)
    expected = (move**2).sum() + ((one - other) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_closed_form_holds_to_1e_7_with_fewer_samples_than_features(streamed):
    # Of rank 12 in 64 features, along the same axes.
    rng = np.random.default_rng(5)
    axes = np.linalg.qr(rng.standard_normal((64, 12)))[0].T
    one, other = np.linspace(0.5, 3.0, 12), np.linspace(2.0, 0.7, 12)
    x, y = gaussian_samples(13, 12, one, seed=1) @ axes + 0.25, gaussian_samples(40, 12, other, seed=2) @ axes
    expected = 64 * 0.25**2 + ((one - other) ** 2).sum()
    found = frechet_distance(Moments.of(x), Moments.of(y)) if streamed else frechet_distance(x, y)
    assert found == pytest.approx(expected, rel=1e-7)


def test_few_samples_against_many_agree_with_the_singular_values_of_both_sets():
    x, y = features(20, 50, seed=1).numpy(), features(400, 50, seed=2).numpy() * 1.5
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * shared
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_features_that_depend_on_each_other_are_no_obstacle():
    x = features(200, 6).numpy()
    doubled = np.concatenate([x, x], axis=1)
    assert frechet_distance(doubled, doubled + 1.0) == pytest.approx(12.0, rel=1e-6)


def test_a_distance_far_below_zero_is_refused_and_not_clamped():
    sound = Moments.of(features())
    damaged = Moments(sound.count, sound.mean, sound.scatter - 3.0 * np.diag(np.diag(sound.scatter)))
    with refused("statistics-damaged", NumericError, naming="damaged"):
        frechet_distance(damaged, sound)


def test_features_of_two_extractors_are_refused():
    with refused("extractors-differ", naming="6 and 7"):
        frechet_distance(features(), features(width=7))


@pytest.mark.parametrize("small", [0.3, 1e-6])  # the quicker way to singular values; where squares would lose digits
def test_the_closed_form_holds_however_far_apart_the_variances_are(small, monkeypatch):
    taken = []
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda *a, **k: taken.append(1) or svd(*a, **k))
    width = 64
    one, other = np.linspace(0.5, 3.0, width), np.linspace(2.0, 0.7, width)
    one[8:], other[8:] = small, 1.5 * small
    axes = np.linalg.qr(np.random.default_rng(5).standard_normal((width, width)))[0]
    x, y = gaussian_samples(300, width, one, seed=1) @ axes, gaussian_samples(200, width, other, seed=2) @ axes
    expected = np.square(one - other).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert bool(taken) == (small < 1e-3)
