"""What tests expect of a refusal: an error of zoo's with a code, however its sentence is worded.

`naming` is for tests whose subject is that the sentence names the thing: a key, a file, a number. A row of a
parametrized test writes both in one text, "CODE: THING". "ONE|OTHER" is for what may end in either.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from zoo.schema.errors import ZooError


@contextmanager
def refused(code: str, kind: type[ZooError] = ZooError, *, naming: str = "") -> Generator[pytest.ExceptionInfo]:
    """The block raises an error of this class with this code, whose sentence has `naming` in it."""
    if ": " in code:
        code, naming = code.split(": ", 1)
    with pytest.raises(kind) as told:
        yield told
    assert told.value.code in code.split("|"), f"{told.value.code}, not {code}: {told.value}"
    assert naming in str(told.value), f"'{naming}' is not in: {told.value}"
