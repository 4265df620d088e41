"""Streaming moments against those of all samples at once."""

import numpy as np
import pytest

from tests.refusals import refused
from zoo.evaluation.extractors.moments import Moments, merge


def samples(count=300, offset=0.0):
    return (np.random.default_rng(0).standard_normal((count, 5)) + offset).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 300])
def test_merged_shards_have_the_moments_of_the_whole(size):
    x = samples()
    whole = merge(Moments.of(x[i : i + size]) for i in range(0, len(x), size))
    assert whole.count == 300
    np.testing.assert_allclose(whole.mean, x.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(whole.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-12)


def test_a_large_offset_costs_no_digits():
    x = samples(offset=10_000.0)
    found = merge(Moments.of(part) for part in np.array_split(x, 10)).covariance
    np.testing.assert_allclose(found, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-10)


def test_what_has_no_covariance_is_told():
    with refused("images-too-few"):
        _ = Moments.of(samples(1)).covariance
    with refused("moments-unmergeable"):
        merge([])
    with refused("moments-unmergeable"):
        Moments.of(samples()).merge(Moments.of(samples()[:, :3]))
    with refused("features-shape-wrong"):
        Moments.of(samples()[0])


def test_moments_of_an_unknown_number_are_not_merged():
    known = Moments.of(np.eye(3))
    unknown = Moments(2, known.mean, known.covariance, counted=False)
    for one, other in ((known, unknown), (unknown, known)):
        with refused("moments-unmergeable"):
            one.merge(other)
