"""The cost of metrics next to the usual libraries: the Fréchet distance and Inception's features.

- Fréchet distance of 2048 features, over the root of a matrix: `scipy.linalg.sqrtm(S1 @ S2)`, pytorch-fid's formula. At
  full rank both start from means and covariances; with fewer images than features both start from the features.
- Inception features of uint8 images, over pytorch-fid's network in float32, each with its own resizing and its own
  batch, the weights the same. bfloat16 moves the distance; how far is measured on images of two kinds.

Both sides take turns, so that other load on the machine falls on both alike; a ratio is the median of the rounds'.

    python -m benchmarks.metrics
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Literal

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from benchmarks import record
from benchmarks.peers.metrics import images
from zoo.evaluation.extractors.inception import WEIGHTS, Inception2015
from zoo.evaluation.extractors.moments import Moments
from zoo.evaluation.extractors.weight_file import Unavailable
from zoo.evaluation.metrics.frechet import frechet_distance

DIMENSIONS = 2048
PEER_BATCH = 50  # pytorch-fid's own
PARTS = ("frechet", "inception")


def in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, round by round; the order alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats):
        for name, call in list(calls.items())[:: 1 if number % 2 else -1]:
            began = perf_counter()
            call()
            seconds[name].append(perf_counter() - began)
    return seconds


def faster(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of theirs over ours."""
    return round(statistics.median(t / o for o, t in zip(ours, theirs, strict=True)), 2)


def made_features(count: int, dimensions: int, seed: int) -> np.ndarray:
    """(N, D) with variances that fall as 1, 1/2, 1/3, ... along axes of no coordinate's own."""
    draw = np.random.default_rng(seed)
    axes = scipy.linalg.hadamard(dimensions) / np.sqrt(dimensions)
    scales = (1.0 + 0.2 * seed) / np.sqrt(np.arange(1, dimensions + 1.0))
    return (draw.standard_normal((count, dimensions)) * scales) @ axes + 0.01 * seed


def by_matrix_root(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """The distance as pytorch-fid has it; scipy from 1.18 on would refuse pytorch-fid's own call."""
    (mean_1, covariance_1), (mean_2, covariance_2) = one, other
    root: Any = scipy.linalg.sqrtm(covariance_1 @ covariance_2)
    apart = mean_1 - mean_2
    return float(apart @ apart + np.trace(covariance_1) + np.trace(covariance_2) - 2.0 * np.trace(root).real)


def usual_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance."""
    return x.mean(axis=0), np.cov(x, rowvar=False)


def frechet(repeats: int, dimensions: int) -> list[dict[str, Any]]:
    """One row at full rank and one of fewer images than features."""
    small = [made_features(160, 64, seed) for seed in (1, 2)]  # one-time work is done by then
    frechet_distance(small[0], small[1])
    by_matrix_root(usual_moments(small[0]), usual_moments(small[1]))
    rows = []
    for case, count in (("full rank", 2 * dimensions), ("fewer pictures than features", dimensions * 1000 // 2048)):
        few = count < dimensions
        features = [made_features(count, dimensions, seed) for seed in (1, 2)]
        ours = features if few else [Moments.of(x) for x in features]
        theirs = None if few else [usual_moments(x) for x in features]
        found: dict[str, float] = {}

        def zoo(ours: Any = ours, found: dict[str, float] = found) -> None:
            found["zoo"] = frechet_distance(ours[0], ours[1])

        def sqrtm(theirs: Any = theirs, features: Any = features, found: dict[str, float] = found) -> None:
            one, other = theirs or [usual_moments(x) for x in features]
            found["sqrtm"] = by_matrix_root(one, other)

        seconds = in_turn({"zoo": zoo, "sqrtm": sqrtm}, repeats)
        rows.append({
            "case": case, "samples": count, "dimensions": dimensions, "from": "features" if few else "moments",
            "zoo_seconds": record.median_of(seconds["zoo"]), "sqrtm_seconds": record.median_of(seconds["sqrtm"]),
            "times_faster": faster(seconds["zoo"], seconds["sqrtm"]),
            "value": found["zoo"], "relative_difference": abs(found["sqrtm"] / found["zoo"] - 1.0),
        })  # fmt: skip
    return rows


def extractor(precision: Literal["float32", "bfloat16"]) -> tuple[Inception2015, bool]:
    """Inception, and whether its weights are random because the published ones aren't here."""
    try:
        return Inception2015(precision=precision), False
    except Unavailable:
        return Inception2015(precision=precision, seed=0), True


def pytorch_fid(ours: Inception2015) -> torch.nn.Module:
    """pytorch-fid's network with our weights, which it would otherwise download."""
    try:
        from pytorch_fid import inception  # type: ignore[import-not-found]
    except ImportError:
        sys.exit("this benchmark compares with pytorch-fid's network; install pytorch-fid 0.3.0")
    weights = {name: tensor.contiguous().clone() for name, tensor in ours.network.state_dict().items()}
    inception.load_state_dict_from_url = lambda *_, **__: weights
    return inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[DIMENSIONS]]).eval()


@torch.no_grad()
def peer_features(network: torch.nn.Module, shown: Tensor) -> Tensor:
    """As pytorch-fid calls it on a folder: float32 in [0, 1], 50 at a time."""
    return torch.cat([network(part.float() / 255.0)[0][:, :, 0, 0] for part in shown.split(PEER_BATCH)])


@torch.no_grad()
def apart(ours: Inception2015, network: Any) -> float:
    """The two networks on the very same numbers, so that neither resizing nor scaling differs."""
    shown = images(2, 5, size=299)
    network.resize_input = network.normalize_input = False
    theirs = network((shown.float() - 128.0) / 128.0)[0][:, :, 0, 0]
    network.resize_input = network.normalize_input = True
    return float((ours.images(shown) - theirs).abs().max() / theirs.abs().max())


def inception(repeats: int, count: int, size: int, shift_count: int) -> dict[str, Any]:
    """Speed of both precisions over pytorch-fid's float32, and what bfloat16 does to the distance."""
    (full, random), (half, _) = extractor("float32"), extractor("bfloat16")
    network = pytorch_fid(full)
    shown = images(count, 0, size=size)
    calls: dict[str, Callable[[], Any]] = {
        "float32": lambda: full.images(shown),
        "bfloat16": lambda: half.images(shown),
        "pytorch-fid": lambda: peer_features(network, shown),
    }
    in_turn(calls, 1)  # weights are folded, memory is allocated
    seconds = in_turn(calls, repeats)
    rows = [
        {
            "what": name, "images_per_second": round(count / statistics.median(runs), 2),
            "times_faster": faster(runs, seconds["pytorch-fid"]), "seconds": record.median_of(runs),
        }
        for name, runs in seconds.items()
    ]  # fmt: skip
    # Of the second kind the contrast is lower, so that there is a distance to move.
    kinds = images(shift_count, 1, size=64), (images(shift_count, 2, size=64) // 2 + 64)
    values = {e.name: frechet_distance(*(e.images(kind) for kind in kinds)) for e in (full, half)}
    exact, moved = values.values()
    return {
        "rows": rows, "random_weights": random, "relative_difference_float32": apart(full, network),
        "shift": {"samples": shift_count, "values": values, "relative": moved / exact - 1.0},
        "extractors": {e.name: e.sha256 for e in (full, half)},
    }  # fmt: skip


def tell(values: Mapping[str, Any]) -> None:
    """Print what was measured."""
    for row in values.get("frechet", ()):
        ours, theirs = row["zoo_seconds"]["median"], row["sqrtm_seconds"]["median"]
        print(
            f"Fréchet, {row['case']} ({row['samples']} x {row['dimensions']}): {ours:.3f} s, sqrtm {theirs:.2f} s, "
            f"{row['times_faster']:.1f}x, apart {row['relative_difference']:.1e}"
        )
    found = values.get("inception")
    if found:
        for row in found["rows"]:
            print(f"Inception, {row['what']}: {row['images_per_second']} pictures a second, {row['times_faster']:.2f}x")
        print(f"float32 against pytorch-fid's network: {found['relative_difference_float32']:.1e}")
        print(f"bfloat16 shifts the distance by {100 * found['shift']['relative']:+.3f} %")
        print("random weights: no distance here is FID" if found["random_weights"] else "published weights")


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="What metrics cost next to what they are usually computed with.")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of Inception's features")
    parser.add_argument("--roots", type=int, default=3, help="rounds of the Fréchet distance")
    parser.add_argument("--count", type=int, default=50, help="pictures a round")
    parser.add_argument("--size", type=int, default=256, help="pixels a side of the pictures")
    parser.add_argument("--shift-count", type=int, default=64, help="pictures of each kind for the shift")
    parser.add_argument("--part", choices=PARTS, help="measure this alone, and write no record")
    parser.add_argument("--quick", action="store_true", help="small and once, and no record")
    options = parser.parse_args()
    dimensions = DIMENSIONS
    if options.quick:
        options.repeats, options.roots, options.count, options.size, options.shift_count = 1, 1, 4, 64, 4
        dimensions = 256
    values: dict[str, Any] = {}
    with torch.inference_mode():
        if options.part in (None, "frechet"):
            values["frechet"] = frechet(options.roots, dimensions)
        if options.part in (None, "inception"):
            values["inception"] = inception(options.repeats, options.count, options.size, options.shift_count)
    tell(values)
    if not options.quick and options.part is None:
        settings = {
            "repeats": options.repeats, "roots": options.roots, "count": options.count, "size": options.size,
            "shift_count": options.shift_count, "peer_batch": PEER_BATCH, "statistic": "median of rounds",
        }  # fmt: skip
        whole = record.make(
            "metrics", settings=settings, values=values, threads=torch.get_num_threads(),
            weights={} if values["inception"]["random_weights"] else {"inception-2015": WEIGHTS.sha256},
            packages=("torch", "numpy", "scipy", "pytorch-fid"),
        )  # fmt: skip
        print(record.write(whole))


if __name__ == "__main__":
    main()
