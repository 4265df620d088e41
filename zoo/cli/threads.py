"""The option `--threads`, the same in every verb that computes."""

from __future__ import annotations

from typing import Annotated

import typer


def _prepare(threads: int | None) -> int | None:
    from zoo.acceleration.threads import prepare

    prepare(threads)
    return threads


Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=4096, callback=_prepare, help="Threads on the CPU; one a core if not given."),
]
