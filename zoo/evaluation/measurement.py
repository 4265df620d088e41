"""Features to numbers: metrics by name, each value under its key, with a deviation over disjoint ranges of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zoo.evaluation.extractors.extractor import TextTower
from zoo.evaluation.extractors.features import Features
from zoo.evaluation.extractors.moments import Moments
from zoo.evaluation.metrics.metrics import Metric
from zoo.schema.errors import UsageError
from zoo.schema.registry import registry


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A value under its key; over several ranges their mean, with the standard deviation between them."""

    key: str
    value: float
    values: tuple[float, ...]  # of each range
    deviation: float | None  # None of a single range


def metric(name: str | Metric) -> Metric:
    """A registered metric with its published settings, or the one given."""
    return registry().load("metric", name)() if isinstance(name, str) else name


def layers_of(metrics: Sequence[str | Metric]) -> tuple[str, ...]:
    """The layers that `extract` must make for these metrics."""
    return tuple(sorted({layer for m in metrics for layer in metric(m).layers}))


def with_texts(features: Features, clip: TextTower, captions: Sequence[str]) -> Features:
    """The features with their captions' embeddings, one per image, for CLIPScore."""
    if (clip.name, clip.sha256) != (features.extractor, features.sha256):
        raise UsageError(
            f"'{features.source}' was seen by {features.extractor}, not by {clip.name}; use one CLIP for both",
            code="extractors-differ",
        )
    if len(captions) != features.count:
        raise UsageError(
            f"'{features.source}' has {features.count} pictures and {len(captions)} captions; give one each",
            code="counts-differ",
        )
    return replace(features, texts=clip.texts(captions).float().cpu().numpy())


def part(features: Features, ids: range) -> Features:
    """The features of some samples."""
    place = slice(ids.start, ids.stop, ids.step)
    arrays = {layer: features.array(layer)[place] for layer in features.moments}
    return replace(
        features, count=len(ids), arrays=arrays, moments={layer: Moments.of(a) for layer, a in arrays.items()},
        texts=None if features.texts is None else features.texts[place],
        asked=None if features.asked is None else list(features.asked)[place],
    )  # fmt: skip


def measure(
    metrics: Sequence[str | Metric], generated: Features, reference: Features | None = None, *, ranges: int = 1
) -> list[Measurement]:
    """Every value of the metrics.

    Args:
        metrics: names of registered metrics, or metrics with settings of their own.
        ranges: split the generated samples into so many consecutive ranges of one size and measure each; the key's N
            is then that of a range, and what doesn't fill one is left out.
    """
    size = generated.count // ranges if ranges > 0 else 0
    if size < 1:
        raise UsageError(
            f"{generated.count} pictures make no {ranges} ranges; give 1 to {generated.count}",
            code="count-out-of-range",
        )
    parts = [part(generated, range(i * size, (i + 1) * size)) for i in range(ranges)] if ranges > 1 else [generated]
    found: list[Measurement] = []
    for asked in metrics:
        one = metric(asked)
        runs = [one(p, reference) for p in parts]
        for key in runs[0]:
            values = tuple(run[key] for run in runs)
            deviation = float(np.std(values, ddof=1)) if ranges > 1 else None
            found.append(Measurement(key=key, value=float(np.mean(values)), values=values, deviation=deviation))
    return found
