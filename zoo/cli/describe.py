"""`zoo describe`: what a name means and what it takes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zoo.cli.say import say


def describe(
    name: Annotated[str, typer.Argument(help="A pipeline, or kind/name like sampler/ddim or weights/emoji-kl-f4.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a name means, where it comes from and what it takes."""
    import zoo

    description = zoo.describe(name)
    if as_json:
        typer.echo(json.dumps(description.to_dict(), indent=2))
    else:
        say(str(description), err=False)
