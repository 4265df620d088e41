"""How a sentence names an option: as whoever asked writes it, in Python or on the command line."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from typing import Any

_command_line = False  # of the process: a command is alone in it, and its threads advise as it does


@contextlib.contextmanager
def on_command_line() -> Iterator[None]:
    """What is advised in the block is for somebody at the command line."""
    global _command_line
    before, _command_line = _command_line, True
    try:
        yield
    finally:
        _command_line = before


def option(name: str, value: Any = None) -> str:
    """`copy='plain'` in Python, `--copy plain` on the command line; the name alone without a value."""
    if not _command_line:
        return f"`{name}`" if value is None else f"{name}={value if isinstance(value, int) else str(value)!r}"
    flag = f"--{name.replace('_', '-')}"
    return flag if value is None else f"{flag} {shlex.quote(str(value))}"


def spoken(python: str, command_line: str) -> str:
    """Advice that differs in more than an option."""
    return command_line if _command_line else python
