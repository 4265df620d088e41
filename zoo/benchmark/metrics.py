"""FID and KID in zoo and elsewhere on the same pictures: features, then the distances from the same features.

With the published Inception weights where they are found, else with random ones of the same network, which are as fast;
then no value is called FID.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.benchmark import measure, record
from zoo.benchmark.measure import Timed
from zoo.benchmark.peers import agreement, pair
from zoo.benchmark.pipelines import flags
from zoo.benchmark.suite import Row
from zoo.data.draws import stream
from zoo.evaluation.frechet import frechet_distance
from zoo.evaluation.inception import WEIGHTS, Inception2015
from zoo.evaluation.kernel import kernel_distance
from zoo.evaluation.moments import Moments
from zoo.evaluation.weight_file import Unavailable

if TYPE_CHECKING:
    from zoo.benchmark.run import Run

PEERS = {"torch-fidelity": "torch_fidelity", "torchmetrics": "torchmetrics", "clean-fid": "cleanfid"}
SUBSETS = 20
Call = Callable[[int], Tensor]


def compare(run: Run, rows: list[Row]) -> None:
    """Every row (a number of pictures a batch, a precision) against what is installed."""
    for row in rows:
        _compare(run, row)
        run.save()


def pictures(count: int, seed: int, *, size: int = 64) -> Tensor:
    """Smooth random pictures, uint8 (count, 3, size, size), the same everywhere."""
    drawn = torch.from_numpy(stream(seed, "benchmark pictures").standard_normal((count, 3, 8, 8)).astype(np.float32))
    smooth = F.interpolate(drawn, (size, size), mode="bicubic").mul(60).add(128)
    return smooth.clamp(0, 255).round().to(torch.uint8)


def _compare(run: Run, row: Row) -> None:
    settings, asked = run.suite.settings, row.asked
    precision: Any = asked.precision
    try:
        extractor, random = Inception2015(precision=precision), False
    except Unavailable:
        extractor, random = Inception2015(precision=precision, seed=0), True
    extractor.to(asked.device)
    shown = [pictures(settings.count, settings.seed + i) for i in range(2)]
    features = [extractor.images(part, batch=asked.batch).float().cpu() for part in shown]
    size = min(settings.count, 1000)
    with tempfile.TemporaryDirectory() as place:
        ours: dict[str, Call] = {
            "features": lambda _: extractor.images(shown[0], batch=asked.batch).float().cpu(),
            "frechet": lambda _: torch.tensor(_frechet(features)),
            "kernel": lambda _: torch.tensor(
                kernel_distance(
                    features[0].numpy(), features[1].numpy(), subsets=SUBSETS, size=size, seed=2020
                ).mean
            ),
        }  # fmt: skip
        theirs = {name: _peer(name, Path(place), extractor, row, shown, features, size) for name in PEERS}
        for part, call in ours.items():
            calls = {name: made[part] for name, made in theirs.items() if isinstance(made, dict) and part in made}
            _part(run, row, part, call, calls, random)
    for name, made in theirs.items():
        if isinstance(made, str):
            run.record["rows"].append(record.row_of(row, "unavailable", made, part="features", library=name))


def _frechet(features: list[Tensor]) -> float:
    # As torch-fidelity and others do, from moments: with fewer pictures than dimensions ours has a quicker way.
    few = features[0].shape[0] <= features[0].shape[1]
    given = [f.numpy() if few else Moments.of(f.numpy()) for f in features]
    return frechet_distance(given[0], given[1])


def _part(run: Run, row: Row, part: str, ours: Call, theirs: dict[str, Call], random: bool) -> None:
    settings, asked = run.suite.settings, row.asked
    timed = {
        name: Timed(id=row.id, call=call, device=asked.device, batch=settings.count)
        for name, call in {"zoo": ours, **theirs}.items()
    }
    for one in timed.values():
        measure.warm_up(one, settings.warm_up)
    run.tell(f"{asked.name}, {part}")
    baseline = measure.rounds(list(timed.values()), settings.repeats)
    group = f"{asked.name}: {part}"
    run.record["noise"][group] = measure.noise(asked.name, baseline)
    values = {name: one.call(0) for name, one in timed.items()}
    ids = {}
    for name, one in timed.items():
        out = record.row_of(row, "measured", part=part, library=name) | {"group": group}
        out["speed"] = measure.speed(one, None)
        out["precision"] = {"dtype": asked.precision, **flags()}
        out["memory"], out["energy"] = one.memory, measure.energy(one)
        out["wall_seconds"] = round(sum(one.seconds), 3)
        out["weights"] = {} if random else {"inception-2015": WEIGHTS.sha256}
        out["random_weights"] = random
        out["notes"] = [f"{settings.count} pictures"] + ["random weights: no value is FID"] * random
        out["quality"] = record.quality("a comparison of metrics on made pictures")
        if part != "features":
            out["notes"].append(f"value {float(values[name]):.8g}")
        run.record["rows"].append(out)
        ids[name] = out["id"]
    for name in theirs:
        # Relative to the value, or to the largest feature.
        scale = float(values["zoo"].abs().max()) or 1.0
        # Of fewer pictures than dimensions the root that others take of a singular matrix is itself not better.
        within = 1e-3 if part == "frechet" and settings.count <= 2048 else 1e-4
        tolerance = within if asked.precision == "float32" or part != "features" else None
        close = agreement(values["zoo"] / scale, values[name] / scale, f"{part}, relative", tolerance)
        peer = f"{name} {run.record['versions'].get(name)}"
        run.record["pairs"].append(
            pair(f"{asked.name}: {part}", ids["zoo"], ids[name], peer, timed["zoo"].seconds, timed[name].seconds, close)
        )


def _peer(
    name: str, place: Path, extractor: Inception2015, row: Row, shown: list[Tensor], features: list[Tensor], size: int
) -> dict[str, Call] | str:
    """What a library is called with, part by part; or why it isn't."""
    if find_spec(PEERS[name]) is None:
        return f"{name} is not installed"
    try:
        make = {"torch-fidelity": _torch_fidelity, "torchmetrics": _torchmetrics, "clean-fid": _clean_fid}[name]
        return make(place, extractor, row, shown, features, size)
    except Exception as error:  # another library's own failure is a finding, not ours
        return f"{name} can't be used here: {type(error).__name__}: {str(error).splitlines()[0][:160]}"


def _file(place: Path, extractor: Inception2015) -> str:
    path = place / "weights.pth"
    if not path.exists():
        state = {name: tensor.float().contiguous().cpu() for name, tensor in extractor.network.state_dict().items()}
        torch.save(state, path)
    return str(path)


def _torch_fidelity(
    place: Path, extractor: Inception2015, row: Row, shown: list[Tensor], features: list[Tensor], size: int
) -> dict[str, Call]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    network = FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=_file(place, extractor)
    ).to(row.asked.device)

    @torch.inference_mode()
    def look(_: int) -> Tensor:
        parts = [network(part.to(row.asked.device))[0].float().cpu() for part in shown[0].split(row.asked.batch)]
        return torch.cat(parts)

    def frechet(_: int) -> Tensor:
        drawn, real = (fid_features_to_statistics(f) for f in features[:2])
        return torch.tensor(fid_statistics_to_metric(drawn, real, False)["frechet_inception_distance"])

    def kernel(_: int) -> Tensor:
        found = kid_features_to_metric(
            features[0], features[1], kid_subsets=SUBSETS, kid_subset_size=size, rng_seed=2020, verbose=False
        )
        return torch.tensor(found["kernel_inception_distance_mean"])

    return {"features": look, "frechet": frechet, "kernel": kernel}


def _torchmetrics(
    place: Path, extractor: Inception2015, row: Row, shown: list[Tensor], features: list[Tensor], size: int
) -> dict[str, Call]:
    from torchmetrics.image.fid import _compute_fid  # type: ignore[import-not-found]

    def frechet(_: int) -> Tensor:
        wide = [f.double() for f in features]
        means, covariances = [f.mean(dim=0) for f in wide], [f.T.cov() for f in wide]
        return _compute_fid(means[0], covariances[0], means[1], covariances[1])

    return {"frechet": frechet}


def _clean_fid(
    place: Path, extractor: Inception2015, row: Row, shown: list[Tensor], features: list[Tensor], size: int
) -> dict[str, Call]:
    from cleanfid.fid import frechet_distance as distance  # type: ignore[import-not-found]

    def frechet(_: int) -> Tensor:
        arrays = [f.double().numpy() for f in features]
        moments = [(a.mean(axis=0), np.cov(a, rowvar=False)) for a in arrays]
        return torch.tensor(distance(*moments[0], *moments[1]))

    return {"frechet": frechet}
