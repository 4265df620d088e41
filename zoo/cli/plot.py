"""`zoo plot`: schedules, noising, step grids and trajectories as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from zoo.cli.model_options import Overrides, Sampler, Steps

plot = typer.Typer(help="Draw schedules, noising, trajectories and step grids; PNG or SVG by the file's name.")
Out = Annotated[str, typer.Option("-o", "--out", "--output", help="A file in .png or .svg.")]
_DRAWN = "A name, or a block like '{name: cosine, offset: 0.02}'."
_GRIDS = "A name, or a block like '{name: karras, rho: 5}'."


@plot.command("schedule")
def schedule(
    names: Annotated[list[str], typer.Argument(metavar="SCHEDULE...", help=_DRAWN)],
    out: Out = "schedules.png",
) -> None:
    """Draw alpha_t, sigma_t and log-SNR over t."""
    _check_output(out)
    schedules = _components("schedule", names)
    from zoo.inspection.plots.schedules import plot_schedules
    from zoo.inspection.plots.style import save

    typer.echo(str(save(plot_schedules(schedules), out)))


@plot.command("noising")
def noising(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture; cropped around its centre.")],
    schedules: Annotated[list[str] | None, typer.Option("--schedule", metavar="SCHEDULE", help=_DRAWN)] = None,
    columns: Annotated[int, typer.Option(min=2, max=30, help="How many t.")] = 9,
    size: Annotated[int, typer.Option(min=1, max=512, help="Pixels a side.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    out: Out = "noising.png",
) -> None:
    """Draw a picture on its way to noise, one row a schedule."""
    _check_output(out)
    found = _components("schedule", schedules or [_default("schedule")])
    from zoo.inspection.plots.noising import plot_noising
    from zoo.inspection.plots.style import save

    typer.echo(str(save(plot_noising(image, found, columns=columns, size=size, seed=seed), out)))


@plot.command("grid")
def grid(
    names: Annotated[list[str], typer.Argument(metavar="GRID...", help=_GRIDS)],
    schedule: Annotated[str | None, typer.Option(metavar="SCHEDULE", help=_DRAWN)] = None,
    steps: Annotated[int, typer.Option(min=1, help="Nodes of each grid.")] = 10,
    out: Out = "grids.png",
) -> None:
    """Draw where step grids put their nodes in log-SNR."""
    _check_output(out)
    grids = _components("grid", names)
    ((label, on),) = _components("schedule", [schedule or _default("schedule")]).items()
    from zoo.inspection.plots.grids import plot_grids
    from zoo.inspection.plots.style import save

    typer.echo(str(save(plot_grids(grids, on, steps=steps, name=label), out)))


@plot.command("trajectory")
def trajectory(
    model: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline's name or a config file.")],
    prompt: Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="What to draw.")] = None,
    label: Annotated[str | None, typer.Option(metavar="CLASS", help="A class to draw, by name or number.")] = None,
    columns: Annotated[int, typer.Option(min=2, max=30, help="How many steps to show.")] = 8,
    seed: Annotated[int, typer.Option(help="Same seed, same picture.")] = 0,
    steps: Steps = None,
    sampler: Sampler = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    overrides: Overrides = None,
    out: Out = "trajectory.png",
) -> None:
    """Draw x_t and the network's estimate of x0 over the steps of a run."""
    import zoo
    from zoo.config.check import resolve

    _check_output(out)
    pipe = zoo.build(resolve(model, overrides, {"sampler": sampler, "steps": steps, "guidance": guidance}))
    from zoo.inspection.plots.style import save
    from zoo.inspection.plots.trajectory import plot_trajectory, watch

    asked: dict[str, Any] = {} if label is None else {"labels": label}
    found = watch(pipe, prompt, columns=columns, seed=seed, **asked)
    typer.echo(str(save(plot_trajectory(found), out)))


def _check_output(out: str) -> None:
    """Refuse a wrong name before anything slow is imported."""
    from zoo.schema.errors import UsageError

    if not out.lower().endswith((".png", ".svg")):
        raise UsageError(
            f"'{out}' ends in no format of figures; use a name in .png or .svg", code="output-format-unknown"
        )


def _default(kind: str) -> str:
    from zoo.schema.registry import registry

    return registry().default(kind)


def _components(kind: str, words: Sequence[str]) -> dict[str, Any]:
    """Components by name or block, keyed by their names and what differs from the defaults."""
    from zoo.config.blocks import check_block, make
    from zoo.inspection.facts import brief
    from zoo.schema.registry import registry
    from zoo.schema.safe_yaml import parse_value

    known, found = registry(), {}
    for word in words:
        block = check_block(parse_value(word, source=word), kind=kind, where=f"'{word[:60]}'", registry=known)
        found[brief(kind, block, known)] = make(kind, block, known)
    return found
