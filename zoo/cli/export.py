"""`zoo export`: a pipeline as a folder that another library reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.model_options import Overrides, Sampler
from zoo.schema.places import check_place


def export(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    model: Annotated[str, typer.Option(help="A pipeline's name or a config file.")] = "latent-text2img",
    overrides: Overrides = None,
    sampler: Sampler = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the folder and its files as JSON.")] = False,
) -> None:
    """Write a latent text-to-image pipeline as a diffusers folder (StableDiffusionPipeline), which zoo reads too."""
    import json

    import zoo
    from zoo.config.check import resolve

    check_place(output / "model_index.json", output)
    resolved = resolve(model, overrides, {"sampler": sampler})  # a wrong request is refused before torch is imported
    from zoo.families.diffusers.export import check_target, export_diffusers

    check_target(output)
    folder = export_diffusers(zoo.build(resolved), output)
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "files": files}, indent=2))
    else:
        typer.echo(
            f"wrote '{folder}': StableDiffusionPipeline.from_pretrained('{folder}') draws with it, and so does "
            f"zoo generate --model {folder}"
        )
