"""What a metric promises: numbers under keys that say what they are of, the same for the same features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.conformance.report import Check, Fault, NotAsked, Subject
from zoo.schema.errors import ZooError

if TYPE_CHECKING:
    from zoo.evaluation.extractors.features import Features

WIDTH = 8
EXTRACTOR, HASH = "conformance", "c0" * 32


def _features(metric: Any, count: int, seed: int) -> Features:
    """Random unit features of the layers that a metric needs, with captions' embeddings beside them."""
    from zoo.evaluation.extractors.features import Features
    from zoo.evaluation.extractors.moments import Moments

    rng = np.random.default_rng(seed)

    def unit() -> np.ndarray:
        rows = rng.standard_normal((count, WIDTH))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    arrays = {layer: unit() for layer in metric.layers}
    return Features(
        source=f"set {seed}", extractor=EXTRACTOR, sha256=HASH, count=count, arrays=arrays,
        moments={layer: Moments.of(a) for layer, a in arrays.items()}, pictures_sha256="0" * 64, texts=unit(),
    )  # fmt: skip


def _measured(metric: Any) -> tuple[dict[str, float], Features]:
    generated = _features(metric, 40, 0)
    try:
        return metric(generated, _features(metric, 60, 1) if metric.paired else None), generated
    except ZooError as error:
        raise NotAsked(f"it refuses 40 random features of an extractor '{EXTRACTOR}' ({error})") from error


def _needs(subject: Subject) -> None:
    metric = subject.make()
    if not getattr(metric, "layers", ()) or not isinstance(getattr(metric, "paired", None), bool):
        raise Fault("it doesn't say which layers it needs and whether it needs a reference",
                    "set the class attributes layers: ('pool',) and paired: True or False")  # fmt: skip
    if not metric.paired:
        return
    try:
        metric(_features(metric, 40, 0), None)
    except ZooError:
        return
    raise Fault("it needs a reference and goes without", "raise a UsageError where reference is None")


def _keys(subject: Subject) -> str:
    values, _ = _measured(subject.make())
    if not values or not all(isinstance(v, float) and np.isfinite(v) for v in values.values()):
        raise Fault(f"it gives {values}", "give finite floats by key")
    wrong = next((k for k in values if f"{EXTRACTOR}@{HASH[:8]}" not in k or not k.endswith("@40")), None)
    if wrong is not None:
        raise Fault(f"the key '{wrong}' doesn't say extractor, weights and N, so unlike numbers would be compared",
                    "make keys by zoo.evaluation.metrics.keys.metric_key")  # fmt: skip
    return ", ".join(values)


def _pure(subject: Subject) -> None:
    metric = subject.make()
    first, generated = _measured(metric)
    if first != _measured(metric)[0]:
        raise Fault("the same features give different numbers", "draw from a generator that is seeded on each call")
    fresh = _features(metric, 40, 0)
    if any(not np.array_equal(generated.arrays[layer], fresh.arrays[layer]) for layer in metric.layers):
        raise Fault("it changes the features that it is given", "work on a copy")


CHECKS = (
    Check("needs", "It says which layers it needs, and refuses to go without a reference if it needs one.", _needs),
    Check("keys", "Its numbers are finite, under keys with extractor, weights and N.", _keys),
    Check("pure", "The same features give the same numbers, and stay what they are.", _pure),
)
