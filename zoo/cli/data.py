"""`zoo data`: what is wrong with a dataset, and packing it into shards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(help="Look at training data.")


@data.command("check")
def check(
    path: Annotated[str, typer.Argument(help="A folder, a .zip, a .tar, or a pattern of shards.")],
    size: Annotated[int, typer.Option(min=1, help="Pixels a side that training needs; smaller ones are told.")] = 64,
    conditioner: Annotated[
        str | None, typer.Option(help="Weights whose vocabulary captions are held against, like emoji-base-32-text.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read all of a dataset and say what is wrong; exit code 1 if training or evaluation would suffer."""
    from zoo.cli.progress import step_bar
    from zoo.cli.table import print_table
    from zoo.data.check import check as look

    words = _unknown_words(conditioner) if conditioner is not None else None
    with step_bar() as bar:
        bar.describe("reading")
        report = look(path, size=size, unknown_words=words, progress=bar.update)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(report), "clean": report.clean}, indent=2, ensure_ascii=True))
    else:
        rows = [
            ("problem" if f.problem else "note", f.what, str(f.count), _printable("; ".join(f.examples)))
            for f in report.findings
        ]
        rows += [("split", _printable(name), str(count), "") for name, count in report.splits.items()]
        for column, classes in report.labels.items():
            (most, many), (least, few) = next(iter(classes.items())), list(classes.items())[-1]
            said = f"{len(classes)} classes, {many} of '{most}' to {few} of '{least}'"
            rows.append(("label", _printable(column), str(len(classes)), _printable(said)))
        print_table(("kind", "what", "count", "the first of them"), rows)
        verdict = "ok" if report.clean else "not clean"
        typer.echo(f"{verdict}: {report.rows} rows, {sum(f.count for f in report.findings if f.problem)} problems")
    if not report.clean:
        raise typer.Exit(1)


@data.command("pack")
def pack(
    path: Annotated[str, typer.Argument(help="A folder or .zip with metadata.jsonl.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the shards.")],
    rows: Annotated[int, typer.Option(min=1, help="Samples in a shard.")] = 5000,
) -> None:
    """Write a dataset as WebDataset shards: OUT/000000.tar and on, the pictures' bytes as they are."""
    from zoo.cli.progress import step_bar
    from zoo.data.pack import pack as write

    with step_bar() as bar:
        bar.describe("packing")
        shards = write(path, out, rows=rows, progress=bar.update)
    typer.echo(f"{out}: {len(shards)} shards")


def _printable(text: str) -> str:
    """Names from outside may hold control characters, which a terminal would interpret."""
    return "".join(c if c.isprintable() else " " for c in text)


def _unknown_words(weights: str):
    """The words of a caption that the weights of a conditioner weren't trained on."""
    import zoo.conditioners.vocabulary as vocabulary
    from zoo.checkpoints.files import read_verified
    from zoo.config.cards import read_card
    from zoo.schema.errors import UsageError

    card = read_card(weights)
    tensors = read_verified(card.file, bytes=card.bytes, sha256=card.sha256)
    if card.kind != "conditioner" or "token_ids" not in tensors:
        raise UsageError(
            f"the weights '{weights}' know every word, or are no conditioner; leave out --conditioner",
            code="weights-know-every-word",
        )
    known = frozenset(int(i) for i in tensors["token_ids"])
    return lambda text: sorted({w for w in vocabulary.words(text) if not known.issuperset(vocabulary.encode(w))})
