"""`zoo explain`: what a weight file or a model's folder is, by its header alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="A weight file, index of shards, or folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every name.")] = False,
) -> None:
    """Say what a weight file is: family, variant, parts, precision, what is missing, what tensors can't tell."""
    from zoo.config.hub import is_hub, on_disk
    from zoo.families.explain import explain as read

    report = read(on_disk(file) if is_hub(file) else file)
    if as_json:
        import json

        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        from zoo.families.explain_text import lines

        typer.echo("\n".join(lines(report)))
