"""`zoo replay`: draw an image again from its record."""

from __future__ import annotations

import json
import warnings
from typing import Annotated

import typer

from zoo.cli.threads import Threads
from zoo.schema.errors import RequestNote, ZooError


def replay(
    picture: Annotated[str, typer.Argument(metavar="IMAGE", help="A PNG that zoo wrote, or an .npy.")],
    image: Annotated[str | None, typer.Option(help="The picture it was made from, if from one.")] = None,
    mask: Annotated[str | None, typer.Option(help="The mask it was made with, if with one.")] = None,
    depth: Annotated[str | None, typer.Option(help="The depth map it was made with, if with one.")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="The largest difference that still passes, in steps of 255.")
    ] = 2.0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, auto, ...; the recorded one if not given.")] = None,
    threads: Threads = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Save what was drawn again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a picture again from its record; exit code 0: equal or within the tolerance, 1: different, 2: impossible."""
    from zoo.cli.progress import step_bar
    from zoo.records.reading import check_whole, read_record
    from zoo.schema.errors import UsageError

    try:
        record = check_whole(read_record(picture), source=picture)  # refused before torch is imported
        from zoo.inspection.replay import replay as run

        with step_bar(quiet=as_json) as bar, warnings.catch_warnings():
            warnings.simplefilter("ignore", RequestNote)  # shown when it was drawn
            bar.describe("drawing again")
            found = run(
                picture, record=record, image=image, mask=mask, depth=depth, tolerance=tolerance, device=device,
                callback=lambda p: bar.update(p.done, p.total),
            )  # fmt: skip
    except ZooError as error:
        refused = UsageError(str(error), code=error.code)  # without a run there is no verdict
        if as_json:
            why = {"verdict": "impossible", "because": [str(error)], "code": error.code}
            typer.echo(json.dumps({"schema": "zoo.replay/1"} | why))
            refused.answered = True
        raise refused from error
    if output is not None and found.picture is not None:
        found.save(output)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    if found.verdict == "different":
        raise typer.Exit(1)
