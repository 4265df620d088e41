"""`zoo train`: a recipe to weights."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from zoo.cli.threads import Threads

WARM = 3  # steps that compile and fill caches, and aren't measured
MEASURED = 5  # steps that are, or those of
AT_LEAST = 3.0  # seconds, where that is more
FEW = 0.2  # share of the recipe's steps, of which a run that fits a time warns


class Estimate:
    """Says once, from the first steps' speed, how long a run will take; without validation and sample sheets."""

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None
        self.seen = 0
        self.told = False

    def after(self, step: int, steps: int, now: float) -> float | None:
        """Seconds that the steps left will take, the first time that they can be told."""
        self.seen += 1
        if self.told or self.seen < WARM:
            return None
        if self.first is None:
            self.first = (step, now)
            return None
        done, took = step - self.first[0], now - self.first[1]
        if done < MEASURED or (took < AT_LEAST and step < steps):
            return None
        self.told = True
        return took / done * (steps - step)


def duration(seconds: float) -> str:
    """`45 seconds`, `12 minutes`, `3.5 hours`."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


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
    from zoo.schema.registry import registry
    from zoo.training.engine.time_limit import ENDLESS
    from zoo.training.recipe import read_recipe

    checked = read_recipe(recipe, registry(), overrides)  # before torch is imported, which takes seconds
    place = folder or Path("runs") / checked.name
    fits = seconds if seconds is not None else checked.raw["train"].get("seconds") or None
    silent = os.environ.get("RANK", "0") != "0"  # torchrun's; only the first process prints
    estimate = Estimate()
    try:
        with step_bar(quiet=silent) as bar:
            bar.describe("preparing")

            def report(p: Any) -> None:
                known = p.steps < ENDLESS
                if fits is None:
                    left = estimate.after(p.step, p.steps, monotonic())
                    if left is not None and p.step < p.steps:
                        after = "without validation and sample sheets"
                        bar.note(
                            f"about {duration(left)} for {p.steps - p.step:,} more steps, {after}; {_where(place)}"
                        )
                elif known and not estimate.told:
                    estimate.told = True
                    bar.note(f"{fitted(fits, p.steps, checked.raw['train']['steps'])}; {_where(place)}")
                bar.describe(f"loss {p.loss:.4f}  {p.images_per_second:.0f} images/s")
                bar.update(p.step, p.steps if known else 0)

            made = zoo.train(
                recipe,
                folder=folder,
                resume=resume,
                other_data=other_data,
                seconds=seconds,
                overrides=overrides,
                device=device,
                callback=report,
            )
    except (KeyboardInterrupt, SystemExit) as ended:
        if not silent:
            for note in getattr(ended, "__notes__", None) or [_saved(place)]:
                typer.echo(note, err=True)
        raise
    if silent:
        return
    for note in made.notes:
        typer.echo(note, err=True)
    for name, value in made.validation.items():
        typer.echo(f"validation {name}: {value:.5g}")
    for card in (*made.others, made.card):
        typer.echo(str(card))
    typer.echo(
        f"{made.steps:,} steps of {checked.raw['train']['batch_size']} samples in {duration(made.seconds)}", err=True
    )
    if made.sheet is not None:
        typer.echo(f"samples: {made.sheet}", err=True)
    for option, path in made.draw.items():
        prompts = checked.raw["objective"].get("sheet_prompts") or ["PROMPT"]
        typer.echo(f"draw with: zoo generate {shlex.quote(prompts[0])} --{option} {shlex.quote(str(path))}", err=True)


def fitted(seconds: float, steps: int, recipe: int) -> str:
    """What a time allows, as far as it is known, and whether that is little beside the recipe's steps."""
    said = f"{duration(seconds)} allow about {steps:,} steps at this speed"
    if steps >= FEW * recipe:
        return said
    return f"{said}, where the recipe has {recipe:,}: expect unfinished pictures, and better ones of more --seconds"


def _where(place: Path) -> str:
    return (
        f"checkpoints, scalars.csv and samples go to '{place}'. Ctrl-C saves the step and ends it, --resume goes on, "
        "and a second Ctrl-C doesn't wait"
    )


def _saved(place: Path) -> str:
    """What an ended run left that saved nothing as it ended."""
    saved = sorted((place / "checkpoints").glob("step-*"))
    if not saved:
        return "nothing was saved yet"
    return f"saved before: step {int(saved[-1].name.removeprefix('step-')):,}; go on with --resume"
