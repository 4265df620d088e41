"""Progress of a command, on stderr: a bar on a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager

from zoo.schema.progress import Report, mode, shown


def step_bar(*, quiet: bool = False) -> AbstractContextManager[Report]:
    """A report that is shown until the block ends; nothing if `quiet`."""
    return shown("off" if quiet else mode(log=True))
