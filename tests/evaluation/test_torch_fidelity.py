"""The same pictures and features through torch-fidelity 0.4 and through zoo: values agree to 1e-5."""

import numpy as np
import pytest
import torch

from zoo.evaluation.extractors.inception import Inception2015
from zoo.evaluation.extractors.resize import resize_tf1
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.evaluation.metrics.inception_score import inception_score
from zoo.evaluation.metrics.kernel import kernel_distance
from zoo.evaluation.metrics.manifold import manifold


def pictures(count, size=(40, 56), seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, *size), dtype=np.uint8))


def features(count, seed, width=24):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((width, width)) / 5
    return torch.from_numpy(rng.gamma(1.0 + 0.2 * seed, 0.5, (count, width)) @ mixing).float()


@pytest.mark.peer
@pytest.mark.parametrize("size", [(32, 32), (40, 56), (299, 299), (301, 640), (1, 7)])
def test_the_tf1_resize_is_bit_exact(size):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    x = pictures(1, size)
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x.float(), size=(299, 299), align_corners=False)
    assert torch.equal(resize_tf1(x, 299), theirs)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    ours = Inception2015(seed=3)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    # Norms and biases that do something, too.
    draw = torch.Generator().manual_seed(0)
    for name, tensor in ours.network.state_dict().items():
        if tensor.ndim == 1:
            tensor.add_(torch.rand(tensor.shape, generator=draw) * 0.2)
            assert name.startswith("fc") or ".bn." in name
    torch.save({name: t.contiguous() for name, t in ours.network.state_dict().items()}, path)
    theirs = FeatureExtractorInceptionV3(
        "inception", ["768", "2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    return ours, theirs


@pytest.mark.slow
@pytest.mark.peer
def test_features_of_the_same_pictures_agree(networks):
    ours, theirs = networks
    shown = pictures(2)
    spatial = []
    hook = theirs.Mixed_6d.branch1x1.register_forward_hook(lambda *a: spatial.append(a[2]))
    _, pool, logits = theirs(shown)
    hook.remove()
    found = ours.features(shown, ("pool", "logits", "spatial"))
    assert found["pool"].shape == (2, 2048)
    assert found["spatial"].shape == (2, 2023)
    expected = {"pool": pool, "logits": logits, "spatial": spatial[0][:, :7].flatten(1)}
    for layer, other in expected.items():
        assert other.std() > 0.01
        torch.testing.assert_close(found[layer], other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    torch.testing.assert_close(ours.images(shown[1:], batch=1), found["pool"][1:], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.peer
def test_fid_agrees_from_pictures_to_value(networks):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    ours, theirs = networks
    shown = pictures(4, size=(24, 24), seed=1)
    shown[2:] //= 2
    columns = slice(0, 2048, 16)  # of all, the eigenvalues of its unsymmetric product would take seconds
    pool, own = theirs(shown)[1][:, columns], ours.images(shown)[:, columns]
    stats = [fid_features_to_statistics(part) for part in (pool[:2], pool[2:])]
    expected = fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert frechet_distance(own[:2], own[2:]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.peer
@pytest.mark.parametrize("count", [16, 200])
def test_the_frechet_distance_of_features_agrees(count):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = features(count, 1), features(count + 30, 2)
    stats = [fid_features_to_statistics(f) for f in (x, y)]
    expected = fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-5)


@pytest.mark.peer
def test_the_kernel_distance_agrees_in_mean_and_deviation():
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(150, 1), features(120, 3)
    theirs = kid_features_to_metric(
        x.double(), y.double(), kid_subsets=20, kid_subset_size=100, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=2020, verbose=False,
    )  # fmt: skip
    found = kernel_distance(x, y, subsets=20, size=100)
    assert found.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert found.deviation == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


@pytest.mark.peer
def test_the_inception_score_agrees_in_mean_and_deviation():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = features(203, 1) * 2
    theirs = isc_features_to_metric(logits, 10, True, 2020)
    found = inception_score(logits)
    assert found.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert found.deviation == pytest.approx(theirs["inception_score_std"], rel=1e-9)


@pytest.mark.peer
def test_precision_and_recall_agree():
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = features(300, 1), features(250, 2)
    theirs = prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False)
    found = manifold(x, y)
    assert 0.1 < found.precision < 1.0
    assert found.precision == pytest.approx(theirs["precision"], rel=1e-5)
    assert found.recall == pytest.approx(theirs["recall"], rel=1e-5)
