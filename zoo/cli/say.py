"""Sentences for people: on a terminal wrapped at words, elsewhere one a line."""

from __future__ import annotations

import shutil
import sys
import textwrap

NARROWEST = 20  # columns


def say(text: str, *, err: bool = True) -> None:
    """Print a sentence, on stderr unless `err` is false."""
    stream = sys.stderr if err else sys.stdout
    print(wrapped(text, columns()) if stream.isatty() else text, file=stream)


def columns() -> int:
    """The terminal's width."""
    return max(NARROWEST, shutil.get_terminal_size().columns)


def wrapped(text: str, width: int, indent: str = "  ") -> str:
    """The text in lines of at most `width`, longer words whole: a path is copied from there."""
    lines = [
        textwrap.wrap(
            line, width, subsequent_indent=" " * (len(line) - len(line.lstrip())) + indent,
            break_long_words=False, break_on_hyphens=False,
        ) or [line]
        for line in text.splitlines()
    ]  # fmt: skip
    return "\n".join(piece for pieces in lines for piece in pieces)
