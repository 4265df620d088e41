"""Values out of JSON by name, checked: what is missing is None, what has the wrong kind is refused with its place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from zoo.errors import UsageError


class Fields:
    """A JSON object, and where it stands."""

    def __init__(self, value: Any, place: str) -> None:
        """`place` names the file and the way to the object, for errors."""
        if not isinstance(value, dict):
            raise UsageError(f"{place} is {_kind(value)}, not an object; write it as docs/benchmarks.md says")
        self.value: dict[str, Any] = value
        self.place = place

    def at(self, name: str) -> str:
        """The place of a field."""
        return f"{self.place}: {name}" if self.place.endswith("'") else f"{self.place}.{name}"

    def text(self, name: str) -> str | None:
        """A string."""
        found = self.value.get(name)
        if found is not None and not isinstance(found, str):
            raise UsageError(f"{self.at(name)} is {_kind(found)}, not text")
        return found

    def said(self, name: str) -> str | None:
        """Text, a number or a truth value, as text; of a list, one a stage, all of them."""
        found = self.value.get(name)
        if isinstance(found, list) and found and not any(isinstance(part, (dict, list)) for part in found):
            return " + ".join(as_text(part) for part in found)
        if isinstance(found, (dict, list)):
            raise UsageError(f"{self.at(name)} is {_kind(found)}, not text or a number")
        return None if found is None else as_text(found)

    def number(self, name: str) -> float | None:
        """A finite number."""
        return _number(self.value.get(name), self.at(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers, nulls left out."""
        found = [_number(v, f"{self.at(name)}[{i}]") for i, v in enumerate(self._list(name))]
        return tuple(v for v in found if v is not None)

    def flag(self, name: str) -> bool | None:
        """True or false."""
        found = self.value.get(name)
        if found is not None and not isinstance(found, bool):
            raise UsageError(f"{self.at(name)} is {_kind(found)}, not true or false")
        return found

    def object(self, name: str) -> Fields:
        """An object; an empty one where there is none."""
        found = self.value.get(name)
        return Fields({} if found is None else found, self.at(name))

    def objects(self, name: str) -> list[Fields]:
        """A list of objects."""
        return [Fields(v, f"{self.at(name)}[{i}]") for i, v in enumerate(self._list(name))]

    def count(self, name: str) -> int:
        """How long a list is."""
        return len(self._list(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        found = self._list(name)
        for i, v in enumerate(found):
            if not isinstance(v, str):
                raise UsageError(f"{self.at(name)}[{i}] is {_kind(v)}, not text")
        return tuple(found)

    def named_objects(self) -> Iterator[tuple[str, Fields]]:
        """Every field, each an object."""
        for name, found in self.value.items():
            yield name, Fields(found, self.at(name))

    def _list(self, name: str) -> list[Any]:
        found = self.value.get(name)
        if found is not None and not isinstance(found, list):
            raise UsageError(f"{self.at(name)} is {_kind(found)}, not a list")
        return found or []


def as_text(value: Any) -> str:
    """A JSON value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):  # a component with its settings: its name, and what is set
        named = [as_text(value["name"])] if "name" in value else []
        shown = [
            k if v is True else f"{k}={as_text(v)}" for k, v in value.items() if k != "name" and v not in (None, False)
        ]
        return " ".join(named + shown)
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: Any, place: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{place} is {_kind(value)}, not a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise UsageError(f"{place} is no finite number; write null and a reason")
    return found


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
