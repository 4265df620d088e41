"""`zoo convert`: a single file of Stable Diffusion as a diffusers folder, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.schema.places import check_place


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file in the original layout, or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A new folder, or a new .safetensors file.")],
    copy: Annotated[str | None, typer.Option(help="ema or plain, of a file that has both; ema if not given.")] = None,
    prediction: Annotated[str | None, typer.Option(help="eps or v, where the family has both (SD 2).")] = None,
    heads: Annotated[int | None, typer.Option(help="Of a U-Net of no published size.", min=1)] = None,
    shard_gib: Annotated[
        float, typer.Option(help="The most a folder's weight file has, in GiB.", min=0.0, max=1e6)
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rewrite Stable Diffusion 1, 2 or XL in the other layout, every tensor bit by bit."""
    import json

    check_place(target)
    from zoo.families.stable_diffusion.convert import convert as rewrite

    done = rewrite(
        source, target, copy=copy, prediction=prediction, heads=heads, shard_bytes=max(1, int(shard_gib * 2**30))
    )
    if as_json:
        said = {"path": str(done.path), "files": [str(f) for f in done.files], "tensors": done.tensors}
        typer.echo(json.dumps({**said, "notes": list(done.notes)}, indent=2))
        return
    typer.echo(f"wrote '{done.path}': {done.tensors} tensors in {len(done.files)} files")
    for note in done.notes:
        typer.echo(f"  {note}")
