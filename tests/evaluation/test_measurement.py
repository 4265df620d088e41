"""Metrics by name: their keys, what they refuse, and errors over ranges."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.refusals import refused
from zoo.evaluation.extractors.features import Features
from zoo.evaluation.extractors.inception import WEIGHTS
from zoo.evaluation.extractors.inception_network import LAYERS
from zoo.evaluation.extractors.moments import Moments
from zoo.evaluation.measurement import layers_of, measure, metric, with_texts
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.evaluation.metrics.metrics import KID, FrechetDistance, Metric
from zoo.schema.registry import registry


def features(count, *, seed, extractor="inception-2015", sha256=WEIGHTS.sha256, width=6):
    rng = np.random.default_rng(seed)
    arrays = {layer: rng.standard_normal((count, width)).astype(np.float32) for layer in LAYERS}
    return Features(
        source=f"set {seed}", extractor=extractor, sha256=sha256, count=count, arrays=arrays,
        moments={layer: Moments.of(a) for layer, a in arrays.items()}, pictures_sha256="0" * 64,
    )  # fmt: skip


def keys(*metrics, generated, reference=None):
    return [m.key for m in measure(metrics, generated, reference)]


def test_every_registered_metric_says_what_it_needs():
    names = registry().names("metric")
    assert {"fid", "sfid", "kid", "is", "prdc", "clip-score", "cmmd", "fd"} <= set(names)
    for name in names:
        assert isinstance(metric(name), Metric), name
        assert metric(name).layers, name
        if metric(name).paired:
            with refused("reference-missing"):
                metric(name)(features(20, seed=1, extractor="inception-2015"), None)


def test_keys_carry_everything_that_must_be_equal():
    x, y = features(20, seed=1), features(50, seed=2)
    assert keys("fid", "sfid", generated=x, reference=y) == ["fid-tf1@20", "fid-tf1-floor[n_ref=30]@20", "sfid@20"]
    assert keys("is", generated=x) == [f"is{p}[inception-2015@6726825d,torch-fidelity]@20" for p in ("", "-deviation")]
    assert keys("prdc", generated=x, reference=y)[0] == "precision[inception-2015@6726825d,k=3,n_ref=50]@20"
    assert keys(KID(subsets=2, size=10), generated=x, reference=y)[0] == "kid[inception-2015@6726825d,2x10]@20"
    assert metric("kid") == KID(subsets=100, size=1000, seed=2020)


def test_only_the_published_inception_gives_what_is_called_fid():
    def pair(**said):
        return {"generated": features(20, seed=1, **said), "reference": features(20, seed=2, **said)}

    assert keys("fid", **pair(extractor="inception-2015-clean")) == ["fid-clean@20"]
    assert keys("fd", **pair()) == ["fid-tf1@20"]
    for said in (
        {"sha256": "ab" * 32}, {"extractor": "inception-2015-bf16"}, {"extractor": "timm-resnet50-224"},
    ):  # fmt: skip
        (key,) = keys("fd", **pair(**said))
        assert key.startswith("fd[")
        assert "fid" not in key
        with refused("extractor-unfit"):
            keys("fid", **pair(**said))
        assert keys("sfid", **pair(**said))[0].startswith("fd-spatial[")


def test_values_are_those_of_the_functions():
    x, y = features(20, seed=1), features(50, seed=2)
    found = measure([FrechetDistance(floor=False)], x, y)
    assert [m.value for m in found] == [frechet_distance(x.array(), y.array())]
    assert found[0].deviation is None


def test_two_extractors_are_never_compared():
    with refused("extractors-differ"):
        measure(["fd"], features(20, seed=1), features(20, seed=2, sha256="ab" * 32))


def test_ranges_are_disjoint_and_their_size_is_in_the_key():
    x, y = features(62, seed=1), features(50, seed=2)
    (found,) = measure([FrechetDistance(floor=False)], x, y, ranges=3)
    expected = [frechet_distance(x.array()[i : i + 20], y.array()) for i in (0, 20, 40)]
    assert found.key == "fid-tf1@20"
    assert found.values == pytest.approx(expected)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.deviation == pytest.approx(np.std(expected, ddof=1))
    for wrong in (0, 63):
        with refused("count-out-of-range"):
            measure(["fd"], x, y, ranges=wrong)


def test_the_layers_of_metrics_are_asked_for_once():
    assert layers_of(["fid", "kid", "is", "sfid"]) == ("logits", "pool", "spatial")


def test_infinity_is_told_on_request():
    x, y = features(40, seed=1), features(50, seed=2)
    names = Counter(m.key for m in measure([FrechetDistance(floor=False, infinity=True)], x, y))
    assert names == Counter(["fid-tf1@40", "fid-tf1-infinity@40"])


class Tower:
    name, sha256 = "clip", "ab" * 32

    def texts(self, captions, *, batch=512):
        import torch

        return torch.nn.functional.normalize(torch.ones(len(captions), 6), dim=-1)


def test_clip_score_needs_one_caption_a_picture_from_the_same_clip():
    x = features(4, seed=1, extractor="clip", sha256="ab" * 32)
    (found,) = measure(["clip-score"], with_texts(x, Tower(), ["a"] * 4))
    unit = x.array().astype(float) / np.linalg.norm(x.array(), axis=1, keepdims=True)
    assert found.value == pytest.approx((100 * (unit.sum(axis=1) / np.sqrt(6)).clip(0)).mean(), rel=1e-6)
    assert found.key == "clip-score[clip@abababab]@4"
    with refused("counts-differ"):
        with_texts(x, Tower(), ["a"] * 3)
    with refused("extractors-differ"):
        with_texts(replace(x, extractor="other"), Tower(), ["a"] * 4)
    with refused("caption-missing"):
        measure(["clip-score"], x)
