"""The range of a number that someone else wrote, and the words that it may be: one sentence and one code for each."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal

from zoo.schema.errors import ConfigError

Number = float | Sequence[float] | None
Ends = Literal["[]", "(]", "[)", "()"]
_WORDS: Mapping[Ends, str] = {
    "[]": "from {0} to {1}", "(]": "above {0}, at most {1}", "[)": "from {0} to below {1}",
    "()": "between {0} and {1}",
}  # fmt: skip


def within(
    least: float, most: float, numbers: Mapping[str, Number], ends: Ends = "[]", *, usual: float | None = None
) -> None:
    """ConfigError unless each number, and each of a list, is from `least` to `most`; None is allowed, NaN is not.

    ends: as intervals are written; "(]" refuses `least` itself. usual: a number that the sentence proposes.
    """
    for name, value in numbers.items():
        for number in value if isinstance(value, Sequence) else (value,):
            if number is None or least < number < most:
                continue
            if (number == least and ends[0] == "[") or (number == most and ends[1] == "]"):
                continue
            endless = "above {0}" if ends[0] == "(" else "from {0} up"
            wanted = (endless if most == math.inf else _WORDS[ends]).format(f"{least:.15g}", f"{most:.15g}")
            hint = "" if usual is None else f", like {usual:.15g}"
            raise ConfigError(f"{name} is {number:.15g}; give a number {wanted}{hint}", code="number-out-of-range")


def ordered(bounds: Mapping[str, float], *, equal: bool = True) -> None:
    """ConfigError unless the first of two numbers is the smaller one, or as large where `equal`."""
    (low_name, low), (high_name, high) = bounds.items()
    if not (low < high or (equal and low == high)):
        raise ConfigError(
            f"{low_name} is {low:.15g} and {high_name} is {high:.15g}; give the smaller one first",
            code="bounds-reversed",
        )


def one_of(name: str, value: object, known: Iterable[object]) -> None:
    """ConfigError unless a word is one of the known; None is allowed where it is among them."""
    listed = list(known)
    if not isinstance(value, Hashable) or value not in listed:  # an array compares with each by its values
        words = [str(word) for word in listed if word is not None]
        choice = f"{', '.join(words[:-1])} or {words[-1]}" if words[1:] else words[0]
        left = ", or leave it out" if None in listed else ""
        raise ConfigError(f"{name} is '{value}'; choose {choice}{left}", code="choice-unknown")


def seeded(seed: int | None, name: str = "seed") -> None:
    """ConfigError unless a seed fits 64 bits; None is allowed."""
    if seed is not None and not 0 <= seed < 2**64:
        raise ConfigError(f"{name} is {seed}; give a whole number from 0 to 2**64 - 1", code="seed-invalid")
