"""Notes on a request that is carried out all the same, and how notebooks show texts."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from html import escape
from typing import Any

from zoo.schema.errors import RequestNote


def note(text: str, category: type[Warning] = RequestNote, *, stacklevel: int = 1) -> None:
    """Warn with one line, `note: TEXT`: the place in zoo's source that a warning shows says nothing to its reader.

    Args:
        stacklevel: as `warnings.warn` counts it, from the caller of this.
    """
    plain = warnings.formatwarning

    def one_line(message: Warning | str, kind: type[Warning], *rest: Any, **more: Any) -> str:
        return f"note: {message}\n" if kind is category else plain(message, kind, *rest, **more)

    warnings.formatwarning = one_line
    try:
        warnings.warn(text, category, stacklevel=stacklevel + 1)
    finally:
        warnings.formatwarning = plain


@contextlib.contextmanager
def quiet_bars() -> Iterator[None]:
    """Import in the block a library whose own bars, which zoo never shows, warn of widgets that a notebook lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


def preformatted(text: str) -> str:
    """A text's HTML, with its line breaks."""
    return f'<pre style="white-space:pre-wrap">{escape(text)}</pre>'
