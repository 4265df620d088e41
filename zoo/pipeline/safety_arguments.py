"""Which arguments the safety checks take: checked by their constructors, and by `zoo check` without torch."""

from __future__ import annotations

from zoo.schema.ranges import ordered, within


def mean_brightness(*, low: float, high: float) -> None:
    """Of `zoo.pipeline.safety:MeanBrightness`."""
    within(0.0, 1.0, {"low": low, "high": high})
    ordered({"low": low, "high": high})
