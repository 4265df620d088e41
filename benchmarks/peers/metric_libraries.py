"""Libraries that compute FID and KID, each as a table of what it is called with: zoo, and those that are installed.

All of them are given the same weights. Where one prepares images otherwise than zoo, its `protocols` say so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.bench.rows import Row
from zoo.evaluation.extractors.inception import Inception2015
from zoo.evaluation.extractors.moments import Moments
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.evaluation.metrics.kernel import kernel_distance

PEERS = {"torch-fidelity": "torch_fidelity", "torchmetrics": "torchmetrics", "clean-fid": "cleanfid"}
SUBSETS = 20
TF1, CLEAN = "features", "features-clean"  # the two resizings, each by itself
# torch-fidelity's layers from the image to the pooled features.
LAYERS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2",
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a",
    "Mixed_7b", "Mixed_7c", "AvgPool",
)  # fmt: skip
_WHOLE = "{} draws its subsets unseeded; of up to 1000 pictures each is the whole set"
Look = Callable[[Tensor], Tensor]  # uint8 images -> features
Distance = Callable[[Tensor, Tensor], Any]  # of two sets of features, float64


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library's calls."""

    looks: Mapping[str, Look]  # by resizing
    distances: Mapping[str, Distance]  # frechet, kernel
    protocols: Mapping[str, str] = field(default_factory=dict)  # by part: what it does otherwise than zoo


def of_zoo(extractor: Inception2015, row: Row, size: int, random: bool) -> Library:
    """zoo itself; `size` is of a subset of the kernel distance."""
    precision: Any = row.asked.precision
    clean = Inception2015(precision=precision, resize="clean", seed=0 if random else None).to(row.asked.device)

    def look(one: Inception2015, shown: Tensor) -> Tensor:
        return one.images(shown, batch=row.asked.batch).float().cpu()

    def frechet(x: Tensor, y: Tensor) -> float:
        # As torch-fidelity and others do, from moments: with fewer images than dimensions ours has a quicker way.
        given = [f.numpy() if f.shape[0] <= f.shape[1] else Moments.of(f.numpy()) for f in (x, y)]
        return frechet_distance(*given)

    def kernel(x: Tensor, y: Tensor) -> float:
        return kernel_distance(x.numpy(), y.numpy(), subsets=SUBSETS, size=size, seed=2020).mean

    return Library(
        looks={TF1: lambda shown: look(extractor, shown), CLEAN: lambda shown: look(clean, shown)},
        distances={"frechet": frechet, "kernel": kernel},
    )


def of_peer(name: str, extractor: Inception2015, row: Row, size: int) -> Library | str:
    """A library's calls, or why it isn't used."""
    if find_spec(PEERS[name]) is None:
        return f"{name} is not installed"
    make = {"torch-fidelity": _torch_fidelity, "torchmetrics": _torchmetrics, "clean-fid": _clean_fid}[name]
    try:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "weights.pth"
            state = {n: tensor.float().contiguous().cpu() for n, tensor in extractor.network.state_dict().items()}
            torch.save(state, path)
            return make(str(path), row, size)
    except Exception as error:  # a failure of another library is a result
        return failure(name, error)


def failure(name: str, error: Exception) -> str:
    """Why a library isn't used, in one sentence."""
    said = (str(error).splitlines() or [""])[0][:160]
    return f"{name} can't be used here: {type(error).__name__}: {said}"


def _in_batches(network: Callable[[Tensor], Tensor], row: Row) -> Look:
    @torch.inference_mode()
    def look(shown: Tensor) -> Tensor:
        return torch.cat([network(part.to(row.asked.device)).float().cpu() for part in shown.split(row.asked.batch)])

    return look


def _torch_fidelity(weights: str, row: Row, size: int) -> Library:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=weights)
    network.to(row.asked.device)

    def frechet(x: Tensor, y: Tensor) -> float:
        drawn, real = (fid_features_to_statistics(f) for f in (x, y))
        return fid_statistics_to_metric(drawn, real, False)["frechet_inception_distance"]

    def kernel(x: Tensor, y: Tensor) -> float:
        found = kid_features_to_metric(
            x, y, kid_subsets=SUBSETS, kid_subset_size=size, rng_seed=2020, verbose=False
        )  # fmt: skip
        return found["kernel_inception_distance_mean"]

    return Library(
        looks={TF1: _in_batches(lambda part: network(part)[0], row)},
        distances={"frechet": frechet, "kernel": kernel},
    )


class _Given(nn.Module):
    """Ready features, where an extractor is expected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def _torchmetrics(weights: str, row: Row, size: int) -> Library:
    from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3  # type: ignore[import-not-found]
    from torchmetrics.image.kid import KernelInceptionDistance  # type: ignore[import-not-found]

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=weights)
    network.to(row.asked.device)

    def value(metric: Any, x: Tensor, y: Tensor) -> Any:
        metric.update(y, real=True)
        metric.update(x, real=False)
        return metric.compute()

    def frechet(x: Tensor, y: Tensor) -> float:
        return float(value(FrechetInceptionDistance(feature=_Given(x.shape[1])), x, y))

    def kernel(x: Tensor, y: Tensor) -> float:
        metric = KernelInceptionDistance(feature=_Given(x.shape[1]), subsets=SUBSETS, subset_size=size)
        return float(value(metric, x, y)[0])

    return Library(
        looks={TF1: _in_batches(network, row)},
        distances={"frechet": frechet, "kernel": kernel},
        protocols={
            TF1: "torchmetrics resizes with antialiasing, which isn't the protocol of published FIDs",
            "kernel": _WHOLE.format("torchmetrics"),
        },
    )


def _clean_fid(weights: str, row: Row, size: int) -> Library:
    from cleanfid.fid import fid_from_feats, kernel_distance  # type: ignore[import-not-found]
    from cleanfid.resize import build_resizer  # type: ignore[import-not-found]

    def frechet(x: Tensor, y: Tensor) -> float:
        return float(fid_from_feats(x.numpy(), y.numpy()))

    def kernel(x: Tensor, y: Tensor) -> float:
        return kernel_distance(x.numpy(), y.numpy(), num_subsets=SUBSETS, max_subset_size=size)

    looks: dict[str, Look] = {}
    if find_spec("torch_fidelity") is not None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        whole = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=weights)
        layers = nn.Sequential(*(getattr(whole, name) for name in LAYERS)).to(row.asked.device)
        resize = build_resizer("clean")

        def network(part: Tensor) -> Tensor:
            resized = [torch.from_numpy(resize(p)) for p in part.cpu().permute(0, 2, 3, 1).numpy()]
            x = torch.stack(resized).permute(0, 3, 1, 2).to(part.device)
            return layers((x - 128) / 128).flatten(1)

        looks[CLEAN] = _in_batches(network, row)
    return Library(
        looks=looks,
        distances={"frechet": frechet, "kernel": kernel},
        protocols={
            CLEAN: "clean-fid's resizing before torch-fidelity's network, in place of the network file it downloads",
            "kernel": _WHOLE.format("clean-fid"),
        },
    )
