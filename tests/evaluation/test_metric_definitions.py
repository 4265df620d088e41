"""Kernel distances, scores and manifolds against their definitions, written out."""

import numpy as np
import pytest

from tests.refusals import refused
from zoo.evaluation.metrics.clip_score import clip_score
from zoo.evaluation.metrics.extrapolation import distance_at_infinity, extrapolate, real_floor
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.evaluation.metrics.inception_score import inception_score
from zoo.evaluation.metrics.kernel import cmmd, kernel_distance, polynomial_mmd
from zoo.evaluation.metrics.manifold import manifold


def features(count, width=4, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_kernel_distance_is_the_unbiased_sum_over_pairs():
    x, y = features(5, seed=1).astype(float), features(7, seed=2).astype(float)

    def k(a, b):
        return (a @ b / 4 + 1) ** 3

    own = [
        sum(k(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1)) for z, n in ((x, 5), (y, 7))
    ]
    cross = np.mean([k(a, b) for a in x for b in y])
    assert polynomial_mmd(x, y) == pytest.approx(own[0] + own[1] - 2 * cross, rel=1e-12)


def test_the_kernel_distance_depends_on_its_seed_alone():
    x, y = features(60, seed=1), features(50, seed=2)
    one = kernel_distance(x, y, subsets=3, size=20)
    assert one == kernel_distance(x, y, subsets=3, size=20)
    assert one != kernel_distance(x, y, subsets=3, size=20, seed=1)


def test_a_subset_that_does_not_fit_is_refused():
    with refused("images-too-few", naming="1000"):
        kernel_distance(features(999), features(2000))


def test_cmmd_is_the_biased_gaussian_mmd_times_a_thousand():
    x, y = (unit(features(n, seed=n).astype(float)) for n in (6, 9))

    def mean(a, b):
        return np.mean([np.exp(-np.square(p - q).sum() / 200) for p in a for q in b])

    assert cmmd(x, y) == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-9)
    assert cmmd(x, x) == pytest.approx(0.0, abs=1e-12)
    with refused("extractor-unfit"):
        cmmd(2 * x, y)


def test_the_inception_score_is_the_number_of_classes_where_each_picture_is_of_its_own():
    logits = np.eye(8, dtype=np.float32)[np.arange(80) % 8] * 60
    assert inception_score(logits, protocol="adm").mean == pytest.approx(8.0)
    assert inception_score(np.zeros((20, 8), dtype=np.float32)).mean == pytest.approx(1.0)


def test_adm_scores_parts_in_order():
    logits = features(23, 6) * 3
    parts = [inception_score(logits[i : i + 10], protocol="adm").mean for i in (0, 10, 20)]
    found = inception_score(logits, protocol="adm", part=10)
    assert found.mean == pytest.approx(np.mean(parts))
    assert found.deviation == pytest.approx(np.std(parts))
    assert found.mean != pytest.approx(inception_score(logits, splits=3).mean)


def test_an_unknown_protocol_and_too_few_pictures_are_told():
    with refused("protocol-unknown"):
        inception_score(features(20), protocol="other")
    with refused("images-too-few", naming="10"):
        inception_score(features(9))


@pytest.mark.parametrize("k", [1, 3])
def test_precision_recall_density_and_coverage_are_counts_of_balls(k):
    x, y = features(31, seed=1).astype(float) * 1.2, features(40, seed=2).astype(float)

    def reach(z):
        return np.sort(np.linalg.norm(z[:, None] - z, axis=2), axis=1)[:, k]

    apart = np.linalg.norm(x[:, None] - y, axis=2)
    inside = apart <= reach(y)
    found = manifold(x, y, k=k)
    assert found.precision == pytest.approx(inside.any(axis=1).mean())
    assert found.recall == pytest.approx((apart <= reach(x)[:, None]).any(axis=0).mean())
    assert found.density == pytest.approx(inside.sum() / (k * 31))
    assert found.coverage == pytest.approx(inside.any(axis=0).mean())


def test_a_set_lies_within_itself_and_not_within_one_far_away():
    x = features(50)
    own, far = manifold(x, x), manifold(x + 100, x)
    assert (own.precision, own.recall, own.coverage) == (1.0, 1.0, 1.0)
    assert (far.precision, far.recall, far.density, far.coverage) == (0.0, 0.0, 0.0, 0.0)
    with refused("images-too-few"):
        manifold(x[:3], x)


def test_clip_score_is_a_hundred_times_the_cosine_and_never_below_zero():
    x, y = np.eye(3) * 5, np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, -1]])
    assert clip_score(x, y) == pytest.approx((100 + 100 / np.sqrt(2) + 0) / 3)
    with refused("counts-differ"):
        clip_score(x, y[:2])


def test_extrapolation_finds_the_axis_of_a_line_over_one_over_n():
    counts = [100, 200, 400, 1000]
    found = extrapolate(counts, [3.0 + 50.0 / n for n in counts])
    assert found.distance == pytest.approx(3.0)
    assert found.slope == pytest.approx(50.0)


def test_the_extrapolated_distance_is_nearer_the_truth_than_that_of_all_samples():
    x, y = features(600, 16, seed=1), features(20_000, 16, seed=2)
    found = distance_at_infinity(x, y, smallest=100)
    assert found.counts[-1] == 600
    assert found.distances[-1] == pytest.approx(frechet_distance(x, y))
    assert abs(found.distance) < 0.5 * found.distances[-1]  # both are normal: the truth is 0
    assert found.slope > 0
    with refused("images-too-few", naming="extrapolation"):
        distance_at_infinity(x[:3], y)


def test_the_floor_of_real_pictures_falls_with_their_number():
    y = features(2000, 16)
    assert real_floor(y, 50) > real_floor(y, 500) > 0
    assert real_floor(y, 50) == real_floor(y, 50)
    with refused("images-too-few", naming="floor"):
        real_floor(y, 1999)


@pytest.mark.parametrize("metric", [frechet_distance, manifold, clip_score])
def test_nan_is_no_feature(metric):
    with refused("features-not-finite"):
        metric(features(8) * np.nan, features(8))
