"""The range of a number that someone else wrote: one sentence and one code for all that lie outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoo.schema.errors import ConfigError

Number = float | Sequence[float] | None


def within(least: float, most: float, numbers: Mapping[str, Number]) -> None:
    """ConfigError unless each number, and each of a list, is from `least` to `most`; None is allowed, NaN is not."""
    for name, value in numbers.items():
        for number in value if isinstance(value, Sequence) else (value,):
            if number is not None and not least <= number <= most:
                raise ConfigError(
                    f"{name} is {number:g}; give a number from {least:g} to {most:g}", code="number-out-of-range"
                )
