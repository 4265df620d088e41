"""`zoo bench`: a suite of configurations, measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.bench.row_kinds import ROW_KINDS, RowKind
from zoo.cli.say import say
from zoo.records.benchmark_record import planned_peaks
from zoo.schema.errors import UsageError
from zoo.schema.places import check_place


def bench(
    suite: Annotated[str | None, typer.Argument(help="A suite's name or a file; none lists them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the suites.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the rows and how long they take here.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the suite.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the record.")] = Path("runs/bench"),
    data: Annotated[
        str | None, typer.Option(help="Folder or zip with metadata.jsonl, or COCO's folder, to judge quality by.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="PATH", help="A model's own file, folder or name, for the suite's first rows.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split of the data to judge by.")] = "test",
    device: Annotated[
        str, typer.Option(help="Of rows that name none: cpu, cuda, ...; auto is the best that is there.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished record in the folder.")] = False,
) -> None:
    """Measure speed, memory and quality of a suite of configurations."""
    if listed or suite is None:
        _list(as_json)
        return
    if data is not None and not Path(data).exists():
        raise UsageError(
            f"the data '{data}' does not exist; give a folder or a zip with metadata.jsonl", code="data-missing"
        )
    if weights is not None:
        overrides = [f"matrix.0.model={json.dumps(weights)}", *(overrides or ())]
    bench_suite(
        suite, overrides, dry_run=dry_run, as_json=as_json, out=out, data=data, split=split, device=device,
        resume=resume,
    )  # fmt: skip


def bench_suite(
    suite: str | Path, overrides: list[str] | None = None, *, kinds: Mapping[str, RowKind] = ROW_KINDS,
    dry_run: bool = False, as_json: bool = False, out: Path, data: str | None = None, split: str = "test",
    device: str = "auto", resume: bool = False,
) -> None:  # fmt: skip
    """Measure a suite of these kinds of rows, or show what it requests."""
    from zoo.bench.suite import read_suite

    if not dry_run:
        check_place(out / "record.json", out)
    known: dict[str, Any] = {}
    read_suite(suite, overrides, kinds=kinds, known=known)  # a wrong request is refused before torch is imported
    from zoo.acceleration.device import resolve

    asked = read_suite(suite, overrides, device=str(resolve(device)), kinds=kinds, known=known)
    if dry_run:
        from zoo.bench.estimate import estimate

        _rows(asked, estimate(asked, data=data, split=split), as_json, judged=data is not None)
        return

    from zoo.bench.run import run_suite
    from zoo.cli.progress import step_bar

    with step_bar(quiet=as_json) as bar:

        def report(text: str, done: int, total: int) -> None:
            bar.describe(text)
            bar.update(done, total)

        record, path = run_suite(asked, folder=out, data=data, split=split, resume=resume, report=report)
    if as_json:
        typer.echo(json.dumps({"file": str(path), "record": record}))
    else:
        _print(record)
        typer.echo(str(path))
    failed = [row for row in record["rows"] if row["status"] == "failed"]
    if failed:
        from zoo.schema.errors import ZooError

        error = ZooError(
            f"{len(failed)} of {len(record['rows'])} rows failed; '{failed[0]['name']}': {failed[0]['reason']}",
            code="rows-failed",
        )
        error.answered = as_json  # the record is printed
        raise error


def _list(as_json: bool) -> None:
    from zoo.bench.suite import COMPARISONS, comparison_files, read_suite, suite_names
    from zoo.cli.table import print_table
    from zoo.schema.safe_yaml import read_mapping

    found = [
        {"name": s.name, "kind": s.kind, "rows": len(s.rows), "summary": s.summary}
        for s in map(read_suite, suite_names())
    ]
    # Their rows are checked by those who bring their kinds.
    files = {path.stem: read_mapping(path) for path in comparison_files()}
    found += [{"name": n, "kind": s["kind"], "rows": None, "summary": s["summary"]} for n, s in files.items()]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [(s["name"], "-" if s["rows"] is None else str(s["rows"]), s["summary"]) for s in found]
    print_table(("suite", "rows", "what it answers"), rows)
    say(COMPARISONS[0].upper() + COMPARISONS[1:] + ".")  # the table alone is for other programs


def _rows(asked: Any, expected: dict[str, Any], as_json: bool, *, judged: bool) -> None:
    from dataclasses import asdict

    from zoo.bench.estimate import written
    from zoo.bench.suite import random_weights
    from zoo.cli.table import print_table

    seconds, reasons = expected["rows"], expected["reasons"]
    if as_json:
        rows = [
            {"id": r.id, "name": r.asked.name, "asked": asdict(r.asked),
             "reason": reasons.get(r.id, r.reason), "seconds": seconds.get(r.id)}
            for r in asked.rows
        ]  # fmt: skip
        said = {"suite": asked.name, "sha256": asked.sha256, "settings": asdict(asked.settings), "rows": rows}
        said |= {"seconds": expected["seconds"], "reason": expected["reason"]}
        typer.echo(json.dumps(said, indent=2))
        return

    def note(row: Any) -> str:
        reason = reasons.get(row.id, row.reason)
        if reason is not None:
            return f"unavailable: {reason}"
        return "random weights: speed only" if row.config is not None and random_weights(row.config) else ""

    def about(row: Any) -> str:
        found = seconds.get(row.id)
        return "-" if found is None else written(found)

    print_table(
        ("row", "device", "takes", "note"), [(r.asked.name, r.asked.device, about(r), note(r)) for r in asked.rows]
    )
    if expected["seconds"] is None or expected["reason"]:
        typer.echo(expected["reason"])
    else:
        unjudged = "" if judged else ", with no quality; give --data for that"
        typer.echo(f"about {written(expected['seconds'])} here{unjudged}")


def _print(record: dict[str, Any]) -> None:
    """A table of each kind of value: rows whose keys differ never stand in one column."""
    from zoo.cli.table import print_table

    keys = list(dict.fromkeys(k for r in record["rows"] for k in ((r["quality"] or {}).get("values") or {})))
    print_table(
        ("row", "p50 s", "p90 s", "images/s", "share of peak", "peak MB", "planned MB", *keys, "note"),
        [(row["name"], *_cells(row), *(_value(row, key) for key in keys), _note(row)) for row in record["rows"]],
    )
    for pair in record["pairs"]:
        typer.echo(f"{pair['name']}, over {pair['peer']}: {pair['ratio']:.2f}")
    for group, noise in record["noise"].items():
        spread = noise["relative_spread"]
        said = "unknown, of one round" if spread is None else f"{100 * spread:.1f} %"
        typer.echo(f"noise of {group}: {said}")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["speed"] is None:
        return ("-",) * 6
    speed, memory, work = row["speed"], row["memory"] or {}, row["work"] or {}
    held = memory.get("device_peak_bytes") or memory.get("host_peak_bytes")
    host, device = planned_peaks(memory)
    planned = device or host
    rate, share = speed["images_per_second"], work.get("share_of_peak")
    latency = speed["latency_seconds"]
    return (
        f"{latency['p50']:.4g}", f"{latency['p90']:.4g}", "-" if rate is None else f"{rate:.4g}",
        "-" if share is None else f"{100 * share:.1f} %", "-" if held is None else f"{held / 1e6:.0f}",
        "-" if planned is None else f"{planned / 1e6:.0f}",
    )  # fmt: skip


def _value(row: dict[str, Any], key: str) -> str:
    found = ((row["quality"] or {}).get("values") or {}).get(key)
    return "-" if found is None else f"{found['value']:.4g}"


def _note(row: dict[str, Any]) -> str:
    return "; ".join([*([f"{row['status']}: {row['reason']}"] if row["reason"] else []), *row["notes"]])
