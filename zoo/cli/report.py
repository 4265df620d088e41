"""`zoo report`: benchmark records, or training runs, as one page that works offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.schema.errors import UsageError
from zoo.schema.places import check_place

DEFAULT = Path("benchmarks/results")


def report(
    records: Annotated[
        list[Path] | None,
        typer.Argument(help=f"Record files or folders of them ({DEFAULT} if not given), or folders of training runs."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="HTML", help="The page.")] = Path("report.html"),
    csv: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the views as CSV too.")] = None,
    title: Annotated[str | None, typer.Option(help="What the page is called.")] = None,
) -> None:
    """Make a page from benchmark records (leaderboard, Pareto fronts, samples), or to compare training runs."""
    from zoo.bench.report import page, read_records, read_runs, run_folders, runs_page, write_views
    from zoo.schema.files import write_text

    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"'{out}' is no page; give a name that ends in .html", code="output-format-unknown")
    if not records and not DEFAULT.is_dir():
        raise UsageError(
            f"there is no folder '{DEFAULT}' here; name the records: zoo report PATH", code="benchmark-record-missing"
        )
    check_place(out)
    if csv is not None:
        check_place(csv / "views.csv", csv)
    runs = run_folders(records or [])
    if runs:
        if csv is not None:
            raise UsageError(
                "--csv goes with benchmark records; a run has its values in scalars.csv, so leave it out",
                code="option-conflict",
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        typer.echo(write_text(out, runs_page(read_runs(runs), title or "Training runs")))
        return
    found = read_records(records or [DEFAULT])
    text = page(found, title or "zoo report")
    out.parent.mkdir(parents=True, exist_ok=True)
    typer.echo(write_text(out, text))
    for path in [] if csv is None else write_views(found, csv):
        typer.echo(path)
