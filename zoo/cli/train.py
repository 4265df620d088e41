"""`zoo train`: a recipe to weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.threads import Threads


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, like recipes/emoji/latent-64.yaml.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest good checkpoint.")] = False,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on though the data is not what the run began with.")
    ] = False,
    # torchrun takes --run for an option of its own, before it starts zoo.
    folder: Annotated[
        Path | None, typer.Option("--run", "--folder", help="The run's folder; runs/NAME if not given.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the recipe.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Train for this time: the run sets its steps, and its schedule ends with it.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is the best that is there.")] = "auto",
    threads: Threads = None,
) -> None:
    """Train what a recipe says, and write the weights with their card.

    On several devices: torchrun --nproc-per-node 2 -m zoo.cli.main train RECIPE."""
    import zoo
    from zoo.cli.progress import step_bar
    from zoo.training.engine.time_limit import ENDLESS

    silent = os.environ.get("RANK", "0") != "0"  # torchrun's; only the first process prints
    with step_bar(quiet=silent) as bar:
        bar.describe("preparing")

        def report(p) -> None:
            bar.describe(f"loss {p.loss:.4f}  {p.images_per_second:.0f} images/s")
            bar.update(p.step, p.steps if p.steps < ENDLESS else 0)

        overrides = [*(overrides or []), *([] if seconds is None else [f"train.seconds={seconds}"])]
        made = zoo.train(
            recipe,
            folder=folder,
            resume=resume,
            other_data=other_data,
            overrides=overrides,
            device=device,
            callback=report,
        )
    if silent:
        return
    for note in made.notes:
        typer.echo(note, err=True)
    for name, value in made.validation.items():
        typer.echo(f"validation {name}: {value:.5g}")
    for card in (*made.others, made.card):
        typer.echo(str(card))
