"""Untrusted JSON: UTF-8, each key once, finite numbers, not too many values, no deeper than Python reads."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_VALUES = 500_000


def parse(text: str | bytes, *, finite: bool = True) -> Any:
    """The value; ValueError says in a clause what is wrong with the text. `finite`: NaN and infinities are wrong."""
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        # Each of these begins a value, which takes sixty bytes or more once parsed.
        if sum(text.count(mark) for mark in "[{,") > MOST_VALUES:
            raise ValueError(f"it holds over {MOST_VALUES} values")
        constant, number = (_constant, _finite) if finite else (float, float)
        return json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise ValueError("it is no UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no finite number; write null and a reason")


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        _constant(text[:40])
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(n for n in names if names.count(n) > 1)!r:.60} twice")
    return found
