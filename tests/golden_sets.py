"""Where the recorded outputs of original implementations are, in sets named FAMILY/NAME (tests/golden/README.md).

Small sets are in tests/golden. Larger ones are read from a folder beside the checkout, ../shared/golden, or the one
that the environment variable ZOO_GOLDEN names. A test that reads one of those carries the mark `gold` with the set's
name; where the set is not there it is skipped, and pytest's last lines say so (tests/conftest.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

COPIED = Path(__file__).parent / "golden"
SHARED = Path(os.environ.get("ZOO_GOLDEN") or COPIED.parents[2] / "shared" / "golden")
# Lists of published tensors, beside the recorded outputs; the name that a mark gives them.
MANIFESTS = "reference/manifests"
_MARKED: ContextVar[frozenset[str]] = ContextVar("sets that the mark of the running test names", default=frozenset())


def copied(name: str) -> bool:
    """Whether a set is in the repository, so that every clone has it."""
    return (COPIED / name / "config.json").is_file()


def found(name: str) -> bool:
    """Whether a set can be read here."""
    if name == MANIFESTS:
        return (SHARED.parent / name / "index.json").is_file()
    return copied(name) or (SHARED / name / "config.json").is_file()


def folder(name: str) -> Path:
    """The folder of a set. One that is not in tests/golden is given only to tests whose mark names it: others would
    fail in a fresh clone, and nobody would see that where ../shared/golden is."""
    if copied(name):
        return COPIED / name
    if name not in _MARKED.get():
        raise LookupError(f"the set '{name}' is not in tests/golden; mark the test with pytest.mark.gold('{name}')")
    return SHARED.parent / name if name == MANIFESTS else SHARED / name


def cases(*rows: str | tuple[Any, ...]) -> list[Any]:
    """Parameters of a test, the first of each row a set's name; rows whose set is not in tests/golden are marked."""
    whole = [(row,) if isinstance(row, str) else row for row in rows]
    return [pytest.param(*row, marks=() if copied(row[0]) else pytest.mark.gold(row[0])) for row in whole]


@contextmanager
def marked(names: Iterable[str]) -> Iterator[None]:
    """Within, `folder` gives the sets of these names too; entered for each test by tests/conftest.py."""
    token = _MARKED.set(frozenset(names))
    try:
        yield
    finally:
        _MARKED.reset(token)
