"""Plain values: what a config, a record or a recipe may hold, and how an error shows one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zoo.schema.errors import ConfigError
from zoo.schema.safe_yaml import MAX_DEPTH, MAX_NODES


def to_plain(value: Any, where: str = "the config") -> Any:
    """A deep copy made of dict, list, str, int, float, bool and None only; ConfigError where that can't be."""
    return _to_plain(value, where, 0, [0])


def _to_plain(value: Any, where: str, depth: int, count: list[int]) -> Any:
    count[0] += 1
    if depth > MAX_DEPTH or count[0] > MAX_NODES:
        raise ConfigError(
            f"{where} is nested too deeply, holds itself or is too large; a config is small and plain",
            code="config-too-deep",
        )
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(
                f"{where} is {value}; only finite numbers can stand in a config", code="config-not-finite"
            )
        return float(value)
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str) or not key), None)
        if wrong is not None:
            raise ConfigError(f"{where} has the key {show(wrong)}; keys are text", code="config-key-invalid")
        return {key: _to_plain(item, f"{where}: {key}", depth + 1, count) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item, f"{where}: {i}", depth + 1, count) for i, item in enumerate(value)]
    raise ConfigError(
        f"{where} is a {type(value).__name__}; configs hold text, numbers, true, false, null and lists",
        code="config-type-wrong",
    )


def show(value: Any) -> str:
    """A value as YAML would put it, shortened."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
