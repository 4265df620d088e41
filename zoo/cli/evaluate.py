"""`zoo evaluate`: metrics of two sets of images, or of a pipeline against real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.model_options import Steps
from zoo.cli.say import say
from zoo.cli.threads import Threads
from zoo.schema import files
from zoo.schema.errors import UsageError

if TYPE_CHECKING:
    from zoo.evaluation.comparison import Evaluation

PROTOCOLS = ("fid-tf1", "fid-clean")


def evaluate(
    a: Annotated[str, typer.Argument(metavar="A", help="Generated: a folder, zip, DATA:SPLIT, or a pipeline.")],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="Real: a folder, zip, DATA:SPLIT, or a statistics file.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names, commas between; see `zoo list metric`. Without: fd,prdc.")
    ] = None,
    extractors: Annotated[
        list[str] | None, typer.Option("--extractor", help="A name or block; as often as wanted.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", min=1, help="Pictures of A that a value is of.")] = None,
    ranges: Annotated[int, typer.Option("--seed-ranges", min=1, help="Disjoint ranges of N pictures.")] = 1,
    split: Annotated[str | None, typer.Option(help="Of B.")] = None,
    captions: Annotated[str | None, typer.Option(metavar="DATA", help="What to draw, if B doesn't say.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    sampler: Annotated[str | None, typer.Option(help="Another sampler.")] = None,
    steps: Steps = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the pipeline's config.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Pixels a side that pictures of folders are made.")] = None,
    background: Annotated[str | None, typer.Option(help="white, where pictures are transparent.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Of statistics that don't say: fid-tf1, fid-clean.")] = None,
    save_statistics: Annotated[
        Path | None, typer.Option(metavar="NPZ", help="Write B's statistics (A's, without a B).")
    ] = None,
    features: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep features here.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures drawn at once.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is the best that is there.")] = "auto",
    threads: Threads = None,
    dtype: Annotated[str | None, typer.Option(help="Of the drawing: float32, bfloat16, float16.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure pictures, or what a pipeline draws, against real ones."""
    from zoo.evaluation.choice import default_metrics
    from zoo.schema.registry import registry

    asked = default_metrics(registry()) if metrics is None else read_blocks(metrics)
    wanted = [block for text in extractors or [] for block in read_blocks(text)]
    if protocol is not None and protocol not in PROTOCOLS:
        from zoo.schema.unknown import unknown

        raise UsageError(unknown("protocol", protocol, PROTOCOLS), code="protocol-unknown")
    check_names(asked)
    from zoo.cli.progress import step_bar
    from zoo.evaluation.comparison import evaluate as measure

    with step_bar(quiet=as_json or os.environ.get("RANK", "0") != "0") as bar:
        bar.describe("loading")

        def watch(name: str, done: int, total: int) -> None:
            bar.describe(name)
            bar.update(done, total)

        found = measure(
            a, b, metrics=asked, extractors=wanted, n=n, ranges=ranges, split=split, captions=captions, seed=seed,
            size=size, background=background, protocol=protocol, overrides=overrides, sampler=sampler, steps=steps,
            guidance=guidance, batch_size=batch_size, device=device, dtype=dtype,
            features=kept_features() if features is None else features, forget=features is None,
            save_statistics=save_statistics, watch=watch,
        )  # fmt: skip
    if found is None:  # torchrun started several processes, and only the first prints
        return
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _print(found)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def read_blocks(text: str) -> list[Any]:
    """`fid,{name: kid, size: 250}` -> names and blocks, read as a list of YAML."""
    from zoo.schema.safe_yaml import parse_value

    found = parse_value(f"[{text}]", source=f"the list {text[:60]!r}")
    if not all(isinstance(f, (str, dict)) for f in found):
        raise UsageError(
            f"the list {text[:60]!r} holds what is no name; write names, commas between them",
            code="option-value-invalid",
        )
    return found


def check_names(asked: list[Any]) -> None:
    """Check metrics and their arguments before torch is imported."""
    from zoo.evaluation.choice import metric_block
    from zoo.schema.registry import registry

    for block in asked:
        metric_block(block, registry())


def kept_features() -> Path | None:
    """Where features are kept until a run is done, by default: $ZOO_CACHE/features, or below ~/.cache/zoo.

    None, and a note, where nothing can be kept: a home that is read-only, or isn't there.
    """
    place = files.cache_folder() / "features"
    try:
        place.mkdir(parents=True, exist_ok=True)
        if os.access(place, os.W_OK | os.X_OK):
            return place
        reason = "no permission"
    except OSError as error:
        reason = error.strerror or str(error)
    typer.echo(
        f"note: '{place}' can't be written ({reason}), so an evaluation that is ended begins anew; ZOO_CACHE names "
        "another folder",
        err=True,
    )
    return None


def _print(found: Evaluation) -> None:
    from zoo.cli.table import print_table
    from zoo.evaluation.shown import COLUMNS

    if found.values:
        print_table(COLUMNS, found.rows)
    for absent in found.absent:
        say(str(absent), err=False)
    if found.reading:
        say(found.reading)
    for warning in found.warnings:
        say(f"warning: {warning}")
    if found.statistics is not None:
        typer.echo(found.statistics)
