"""Which arguments the safety checks take: checked by their constructors, and by `zoo check` without torch."""

from __future__ import annotations

from zoo.schema.errors import ConfigError
from zoo.schema.ranges import within


def mean_brightness(*, low: float, high: float) -> None:
    """Of `zoo.pipeline.safety:MeanBrightness`."""
    within(0.0, 1.0, {"low": low, "high": high})
    if low > high:
        raise ConfigError(f"no brightness lies from {low:g} to {high:g}; exchange them", code="number-out-of-range")
