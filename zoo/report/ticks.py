"""Where an axis is marked, and how a number is written."""

from __future__ import annotations

import math
from dataclasses import dataclass

BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def written(value: float, unit: str = "", digits: int = 4) -> str:
    """A value with its unit: bytes and seconds in the size that reads best, everything else to some digits."""
    if unit == "bytes":
        for size, name in BYTES:
            if abs(value) >= size:
                return f"{plain(value / size, digits)} {name}"
        return f"{plain(value, digits)} B"
    if unit == "s" and value != 0:
        if abs(value) < 1e-3:
            return f"{plain(value * 1e6, digits)} µs"
        if abs(value) < 1:
            return f"{plain(value * 1e3, digits)} ms"
    return f"{plain(value, digits)} {unit}".rstrip()


def plain(value: float, digits: int = 4) -> str:
    """A number to some significant digits, without an exponent where it reads better so."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if 1e-4 <= abs(value) < 1e7:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits - 1}g}"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A scale from values to places, with its marks."""

    low: float
    high: float
    logarithmic: bool
    marks: tuple[float, ...]

    def share(self, value: float) -> float:
        """How far along the axis a value stands, from 0 to 1."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis(values: list[float], *, marks: int = 5, may_be_logarithmic: bool = False) -> Axis:
    """An axis that holds the values with a little room; logarithmic where they span a factor of twelve or more."""
    low, high = min(values), max(values)
    if may_be_logarithmic and 0 < 1e-12 * high < low <= high / 12:
        room = (high / low) ** 0.07
        low, high = low / room, high * room
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found: tuple[float, ...] = ()
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = tuple(s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high)
            if len(found) <= marks + 1:
                break
        thinned = found[:: math.ceil(len(found) / (marks + 1))]
        return Axis(low=low, high=high, logarithmic=True, marks=thinned)
    size = max(abs(low), abs(high))
    if size < 1e-100:
        size, low, high = 0.0, 0.0, 0.0  # nothing, to a tenth of a pixel
    room = 0.08 * (high - low) if high - low > 1e-9 * size else 0.1 * size or 1.0
    nonnegative = low >= 0
    low, high = low - room, high + room
    if nonnegative and low < 0.35 * high:
        low = 0.0  # from nothing, where that costs little room
    step = _step((high - low) / marks)
    first = math.ceil(low / step - 1e-9)
    found = tuple(i * step for i in range(first, math.floor(high / step + 1e-9) + 1))
    return Axis(low=low, high=high, logarithmic=False, marks=found)


def _step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, no smaller than the rough step."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * s for s in (1, 2, 5, 10) if power * s >= rough * (1 - 1e-9))
