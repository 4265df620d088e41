"""`zoo diff`: two pipelines, configs or records in sampling terms."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zoo.schema.errors import UsageError


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A pipeline's name, a config file, a record (PNG or JSON).")],
    b: Annotated[str | None, typer.Argument(metavar="[B]", help="Another; A itself if not given.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the config of B.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Another sampler in B.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps of B.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance in B.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where anything differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what differs from A to B: network, schedule, sampler, steps, network evaluations, guidance."""
    from zoo.inspection import compare

    if b is None and not (overrides or sampler or steps is not None or guidance is not None):
        raise UsageError(
            f"'{a}' alone differs from nothing; name another, or change it with --set, --steps or the like",
            code="comparison-of-one",
        )
    found = compare(
        a, a if b is None else b, overrides=overrides, sampler=sampler, steps=steps, guidance=guidance
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        for line in found.lines():
            typer.echo("".join(c if c.isprintable() else " " for c in line))  # names from outside may hold anything
    if exit_code and found:
        raise typer.Exit(1)
