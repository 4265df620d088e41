"""An evaluation for people: its values in rows, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.schema.advice import spoken

COLUMNS = ("value", "is", "deviation")
# What stands beside a Fréchet distance, by the end of its key's front.
BESIDE = {
    "-floor": "what real pictures have to each other",
    "-infinity": "extrapolated to infinitely many pictures",
}


def deviation(error: float | None, sets: int | None, count: int | None) -> str:
    """`0.012 over 3 sets of 500`: the standard deviation, and of what."""
    return "-" if error is None else f"{error:.3g} over {sets} sets of {count}"


def explained(values: Iterable[tuple[str, str | None]]) -> str:
    """Which values are better, and what those beside a distance are, in a line; from keys and what is better of them.

    `lower is better: fd; higher: recall; fd-floor: what real pictures have to each other`.
    """
    found: dict[str, dict[str, None]] = {"lower": {}, "higher": {}}
    beside = {}
    for key, better in values:
        front = key.partition("@")[0].partition("[")[0]
        end = next((end for end in BESIDE if front.endswith(end)), None)
        if end is not None:
            beside[front] = BESIDE[end]
        elif better is not None:
            found[better][front] = None
    said = [f"{way} is better: {', '.join(fronts)}" for way, fronts in found.items() if fronts]
    return "; ".join([*said, *(f"{front}: {meaning}" for front, meaning in beside.items())])


def asked_under(metric: str, extractor: str) -> str:
    """How a metric is asked for under another extractor."""
    return spoken(f"metrics=['{metric}'], extractors=['{extractor}']", f"--metrics {metric} --extractor {extractor}")
