"""`zoo reproduce`: what was published for a pipeline, against what it does here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.evaluation.reproduction import Outcome
    from zoo.evaluation.requirements import Need


def reproduce(
    name: Annotated[str, typer.Argument(help="A pipeline, or weights, with published values.")],
    reference: Annotated[
        str | None, typer.Option(metavar="B", help="What pictures are compared with: statistics, or pictures.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="Whose captions or labels are drawn.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Of statistics that don't say: fid-tf1, fid-clean.")] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", min=1, help="Fewer pictures, to try.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it needs and takes.")] = False,
    features: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep features here.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures drawn at once.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is the best that is there.")] = "auto",
    threads: Threads = None,
    dtype: Annotated[str | None, typer.Option(help="Of the drawing: float32, bfloat16, float16.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what was published for a pipeline or weights, and hold the values against each other."""
    from zoo.cli.evaluate import kept_features
    from zoo.cli.progress import step_bar
    from zoo.evaluation import reproduction
    from zoo.evaluation import requirements as needs

    with step_bar(quiet=as_json or os.environ.get("RANK", "0") != "0") as bar:
        bar.describe("loading")
        if dry_run:
            needed = needs.needs(
                name, reference=reference, data=data, protocol=protocol, device=device, dtype=dtype,
                batch_size=batch_size or 8,
            )  # fmt: skip
            found = None
        else:

            def watch(what: str, done: int, total: int) -> None:
                bar.describe(what)
                bar.update(done, total)

            needed = []
            found = reproduction.reproduce(
                name, reference=reference, data=data, protocol=protocol, n=n, device=device, dtype=dtype,
                batch_size=batch_size, features=kept_features() if features is None else features,
                forget=features is None, watch=watch,
            )  # fmt: skip
            if found is None:  # torchrun started several processes, and only the first prints
                return
    if as_json:
        typer.echo(json.dumps([x.to_dict() for x in found or needed], indent=2))
    elif found is None:
        _tell_needs(needed)
    else:
        _tell(found)
    if found is not None and not all(outcome.verdict == "agrees" for outcome in found):
        raise typer.Exit(1)


def _tell(found: Sequence[Outcome]) -> None:
    from zoo.cli.table import print_table

    rows = [
        (o.pipeline, o.published.metric, str(o.published.n), f"{o.published.value:g}",
         "-" if o.own is None else f"{o.own:.6g}", "-" if o.error is None else f"{o.error:.3g}",
         f"{o.published.tolerance:g}", o.verdict, o.published.source)
        for o in found
    ]  # fmt: skip
    print_table(("of", "metric", "N", "published", "own", "deviation", "tolerance", "verdict", "source"), rows)
    for outcome in found:
        if outcome.why:
            typer.echo(f"{outcome.pipeline}, {outcome.published.metric}: {outcome.why}")
    own = {(outcome.pipeline, outcome.key) for outcome in found}
    beside = {(o.pipeline, key): value for o in found for key, value in o.beside.items()}
    for (name, key), value in beside.items():
        if (name, key) not in own:
            typer.echo(f"{name}, beside: {key} {value:.6g}")


def _tell_needs(needed: Sequence[Need]) -> None:
    for need in needed:
        p = need.published
        typer.echo(f"{need.pipeline}: {p.metric} {p.value:g} with N {p.n} ({p.source})")
        for weights in need.weights:
            state = "there" if weights["there"] else f"missing: needs {weights['file']}, SHA-256 {weights['sha256']}"
            typer.echo(f"  weights {weights['name']}, {weights['bytes']:,} bytes: {state}")
        typer.echo(f"  extractor: {need.extractor}")
        typer.echo(f"  reference: {need.reference}")
        typer.echo(f"  protocol: {p.protocol or 'not said'}{'' if p.split is None else f', split {p.split}'}")
        if need.again:
            typer.echo("  pictures: those of the value before, needed once")
            continue
        asked = "" if need.evaluations is None else f"; network evaluations of one picture each: {need.evaluations:,}"
        typer.echo(f"  pictures: {need.images:,}{asked}")
        typer.echo(f"  {'measuring' if need.evaluations is None else 'drawing'} them here: {_duration(need.seconds)}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"about {seconds / size:.1f} {unit}"
    return f"about {seconds:.0f} seconds"
