"""Progress of what takes a while: a bar on a terminal, one in a notebook, plain lines in a log, or nothing.

A call from Python shows it on a terminal or in a notebook, and is silent elsewhere. The command line always shows it:
where stderr is no terminal it writes a line every few seconds, so that a run under nohup or in CI can be followed.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal, TextIO

Mode = Literal["bar", "notebook", "lines", "off"]
LINE_EVERY = 10.0  # seconds
FRAME_EVERY = 0.2  # seconds
_showing: ContextVar[bool] = ContextVar("zoo_progress_showing", default=False)  # one bar at a time


def mode(*, stream: TextIO | None = None, log: bool = False) -> Mode:
    """The mode for this environment; `log`: plain lines rather than nothing where stderr is no terminal."""
    if _showing.get():
        return "off"
    if in_notebook():
        return "notebook"
    stream = sys.stderr if stream is None else stream
    if stream is not None and stream.isatty():
        return "bar"
    return "lines" if log else "off"


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Report:
    """Receives a run's progress; this one discards it."""

    def describe(self, text: str) -> None:
        """Set the text that says what is being done."""

    def update(self, done: int, total: int) -> None:
        """`done` of `total` steps are done; a total of 0 is unknown."""

    def note(self, text: str) -> None:
        """Say a sentence that stays, above what is shown."""


@contextlib.contextmanager
def shown(how: Mode) -> Iterator[Report]:
    """A report that shows progress in this mode until the block ends."""
    if how == "off":
        yield Report()
        return
    token = _showing.set(True)
    try:
        with {"bar": _bar, "notebook": _notebook, "lines": _lines}[how]() as report:
            yield report
    finally:
        _showing.reset(token)


class _Counted(Report):
    """Says "drawing 12 of 36, 3 s left", at most once in `every` seconds."""

    def __init__(self, say: Callable[[str, float | None], Any], every: float) -> None:
        self.say, self.every = say, every
        self.text, self.begun = "", time.monotonic()
        self.last = self.begun

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def describe(self, text: str) -> None:
        if text.partition(" ")[0] != self.text.partition(" ")[0]:  # another thing, not another loss
            self.begun = self.last = time.monotonic()
        self.text = text

    def update(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        self.last = now
        passed = now - self.begun
        left = f", {clock(passed / done * (total - done))} left" if done and total else ""
        count = f"{done} of {total}" if total else f"{done}"
        self.say(f"{self.text} {count}, {clock(passed)}{left}", done / total if total else None)


def clock(seconds: float) -> str:
    """75 -> "1:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def _lines() -> Iterator[Report]:
    yield _Counted(lambda text, _: print(text, file=sys.stderr, flush=True), LINE_EVERY)


@contextlib.contextmanager
def _notebook() -> Iterator[Report]:
    """A progress element that is shown while the cell runs."""
    from html import escape

    from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

    handle = display(HTML(""), display_id=True)

    def say(text: str, share: float | None) -> None:
        value = "" if share is None else f' value="{share:.3f}"'
        handle.update(HTML(f"<progress{value}></progress> {escape(text)}"))

    try:
        yield _Counted(say, FRAME_EVERY)
    finally:
        handle.update(HTML(""))


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    """A bar that is cleared at the end."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        class Bar(Report):
            def note(self, text: str) -> None:
                progress.console.print(text, markup=False, highlight=False)

            def describe(self, text: str) -> None:
                progress.update(task, description=text)

            def update(self, done: int, total: int) -> None:
                progress.update(task, completed=done, total=total or None)

        yield Bar()
