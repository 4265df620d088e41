"""Which arguments guidance and measurements take: checked by their constructors, and by `zoo check` without torch.

Each function raises ConfigError for arguments that no sample could be drawn with.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of, ordered, within

LARGEST_SCALE = 1000.0  # beyond it float32 has no digits left for the sample
LARGEST_SIDE = 2**14  # pixels
Method = Literal["pigdm", "dps"]
Space = Literal["x0", "eps", "v"]


def scaled(*, scale: float) -> None:
    """Of all that has a scale and nothing else."""
    if not math.isfinite(scale):
        raise ConfigError(
            f"a scale of guidance is a number, not {scale}; 1 is the condition alone", code="guidance-out-of-range"
        )
    if abs(scale) > LARGEST_SCALE:
        raise ConfigError(
            f"a scale of guidance is from -{LARGEST_SCALE:g} to {LARGEST_SCALE:g}, not {scale:g}; 1 is the condition "
            "alone",
            code="guidance-out-of-range",
        )


def interval(*, low: float, high: float = math.inf) -> None:
    """Of `zoo.guidance.interval:LimitedInterval`."""
    within(-math.inf, 1e6, {"low": low})
    if not 0.0 <= low < high:
        raise ConfigError(
            f"an interval of sigma / alpha needs 0 <= low < high, not {low} and {high}", code="interval-invalid"
        )


def static_threshold(*, low: float, high: float) -> None:
    """Of `zoo.guidance.threshold:StaticThreshold`."""
    within(-1e6, 1e6, {"low": low, "high": high})
    ordered({"low": low, "high": high}, equal=False)


def dynamic_threshold(*, percentile: float) -> None:
    """Of `zoo.guidance.threshold:DynamicThreshold`."""
    within(0.0, 1.0, {"percentile": percentile}, "(]", usual=0.995)


def rescale(*, space: str, strength: float) -> None:
    """Of `zoo.guidance.rescale:Rescale`."""
    one_of("space", space, get_args(Space))
    within(0.0, 1.0, {"strength": strength}, usual=0.7)


def posterior(*, method: str, noise: float, scale: float, deviation: float) -> None:
    """Of `zoo.guidance.posterior:Posterior`."""
    one_of("method", method, get_args(Method))
    within(0.0, 1e3, {"noise": noise})
    within(0.0, 1e3, {"deviation": deviation}, "(]")
    scaled(scale=scale)


def downsampled(*, factor: int) -> None:
    """Of `zoo.guidance.measurement:Downsampled`."""
    within(1, LARGEST_SIDE, {"factor": factor}, usual=4)


def blurred(*, deviation: float) -> None:
    """Of `zoo.guidance.measurement:Blurred`."""
    within(0.0, LARGEST_SIDE, {"deviation": deviation}, "(]")  # pixels
