"""Progress bars on the terminal's error stream; silent where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """One bar: a description and a count."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def describe(self, text: str) -> None:
        """Say what is going on."""
        self._progress.update(self._task, description=text)

    def update(self, done: int, total: int) -> None:
        """So many steps of so many are done."""
        self._progress.update(self._task, completed=done, total=total)


@contextmanager
def step_bar(*, quiet: bool = False) -> Iterator[Bar]:
    """A bar that appears at once and goes away at the end; nothing where stderr is no terminal, or if `quiet`."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    shown = not quiet and sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        yield Bar(progress)
