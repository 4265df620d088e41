"""`zoo list`: the names of pipelines, weights and components."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="pipeline, weights, sampler, ...; everything if not given.")
    ] = None,
    pattern: Annotated[str, typer.Argument(help="Names to show, like 'ddp*'.")] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show pipelines, weights and components, broken plugins too."""
    from zoo.cli.table import print_table
    from zoo.config.describe import listing

    found = listing(kind, pattern)
    if as_json:
        keys = ("kind", "name", "summary", "source", "broken")
        typer.echo(json.dumps([{key: getattr(d, key) for key in keys} for d in found], indent=2))
        return
    rows = [(d.kind, d.name, f"BROKEN: {d.broken}" if d.broken else d.summary) for d in found]
    print_table(("kind", "name", "what it is"), rows)
