"""`zoo doctor`: what is wrong with this installation, and with which stage of a cascade."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.model_options import Overrides
from zoo.schema.errors import UsageError
from zoo.schema.files import atomic

if TYPE_CHECKING:
    from zoo.evaluation.cascade_doctor import CascadeReport

SUBJECTS = ("cascade",)


def doctor(
    subject: Annotated[
        str | None, typer.Argument(metavar="[cascade]", help="What to examine; the installation if not given.")
    ] = None,
    name: Annotated[str | None, typer.Argument(help="A pipeline's name or a config file.")] = None,
    data: Annotated[str | None, typer.Option(metavar="PATH", help="True pictures: a folder or zip.")] = None,
    split: Annotated[str | None, typer.Option(help="Of the data; test where there is one.")] = None,
    count: Annotated[int, typer.Option("--n", "-n", min=2, help="Pictures to draw and compare.")] = 64,
    levels: Annotated[str | None, typer.Option(help="Augmentation levels to try, like 0,0.1,0.3.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Sampling steps of every stage.")] = None,
    overrides: Overrides = None,
    extractor: Annotated[str, typer.Option(help="Weights whose features are compared.")] = "emoji-evaluator",
    batch_size: Annotated[int, typer.Option(help="Pictures a network call.", min=1)] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is the best that is there.")] = "auto",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PNG", help="A sheet: true, then stage by stage.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions, devices, caches, plugins and what is broken; or the stage of a cascade that loses the quality."""
    if subject is None:
        _installation(as_json=as_json)
        return
    if subject not in SUBJECTS:
        from zoo.schema.unknown import unknown

        raise UsageError(unknown("subject of the doctor", subject, SUBJECTS), code="choice-unknown")
    if name is None or data is None:
        raise UsageError("give a pipeline and its data: zoo doctor cascade NAME --data PATH", code="option-missing")
    tried = _read_levels(levels)
    if output is not None and output.suffix.lower() != ".png":
        raise UsageError(f"'{output}' is no PNG; give a name that ends in .png", code="output-format-unknown")
    import zoo
    from zoo.config.check import resolve

    resolved = resolve(name, overrides, {"steps": steps})  # a wrong request is refused before torch is imported
    from zoo.cli.progress import step_bar
    from zoo.config.cards import read_card
    from zoo.evaluation.cascade_doctor import LEVELS, examine

    card = read_card(extractor)
    if card.kind != "extractor":
        raise UsageError(
            f"the weights '{extractor}' are of kind '{card.kind}' where an extractor is needed",
            code="weights-kind-wrong",
        )
    pictures = _open_data(data, split, resolved.config["stages"][-1]["size"])
    with step_bar(quiet=as_json) as bar:
        bar.describe("loading")
        report = examine(
            zoo.build(resolved, device=device), pictures,
            extractor=zoo.load(extractor), extractor_name=extractor, extractor_sha256=card.sha256, count=count,
            seed=seed, levels=LEVELS if tried is None else tried, batch_size=batch_size, progress=bar.describe,
        )  # fmt: skip
    if output is not None:
        _write(report, output)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)


def _installation(*, as_json: bool) -> None:
    from zoo.cli.table import print_table
    from zoo.inspection.installation import installation

    found = installation()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [("zoo", found["zoo"]["version"], found["zoo"]["place"])]
    rows += [("package", name, version) for name, version in found["versions"].items() if version]
    rows += [("device", d["device"], d["what"]) for d in found["devices"]]
    for cache in found["caches"]:
        what = f"{cache['files']} files, {cache['bytes'] / 1e6:.1f} MB" if cache["exists"] else "not there"
        rows.append(("cache", cache["place"], what))
    for plugin in found["plugins"]:
        rows.append(("plugin", f"{plugin['package']} {plugin['version']}", ", ".join(plugin["keys"])))
    rows += [("BROKEN", f"{b['kind']}/{b['name']}", b["broken"]) for b in found["broken"]]
    print_table(("what", "name", "how it is"), rows)
    count = len(found["broken"])
    typer.echo(f"{count} broken" if count else "nothing is broken")


def _read_levels(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = [-1.0]
    if not all(0.0 <= level <= 1.0 for level in levels):
        raise UsageError(f"--levels {text}: give noise levels from 0 to 1, like 0,0.1,0.3", code="number-out-of-range")
    return levels


def _open_data(path: str, split: str | None, size: int) -> Any:
    """The data at the last stage's size, its test split (or else val) where it has one and none is named."""
    from zoo.data.image_folder import ImageFolder

    if split is None:
        there = {row.get("split") for row in ImageFolder(path=path, size=size).rows}
        split = next((s for s in ("test", "val") if s in there), None)
    return ImageFolder(path=path, split=split, size=size)


def _write(report: CascadeReport, output: Path) -> None:
    from PIL import Image

    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic(output) as file:
        Image.fromarray(report.picture.permute(1, 2, 0).numpy()).save(file, format="PNG")


def _print(report: CascadeReport) -> None:
    from zoo.cli.table import print_table

    typer.echo(f"{report.pipeline}: {report.key}, seed {report.seed}")
    print_table(
        ("stage", "pixels", "level", "PSNR", "bicubic", "fd true", "fd drawn", "fd bicubic", "floor", "lost"),
        [
            (s.name, str(s.size) if s.low_res is None else f"{s.low_res} to {s.size}", _say(s.level), _say(s.psnr),
             _say(s.psnr_bicubic), _say(s.fd_true, 4), _say(s.fd_generated, 4), _say(s.fd_bicubic, 4),
             _say(s.floor, 4), _say(s.lost, 4))
            for s in report.stages
        ]
        + [("all", "", "", "", "", "", _say(report.total, 4), "", "", _say(report.total, 4))],
    )  # fmt: skip
    rows = [
        (s.name, _say(at.level), _say(at.psnr), _say(at.fd_true, 4), _say(at.fd_generated, 4))
        for s in report.stages
        for at in s.sweep
    ]
    if rows:
        typer.echo("")
        print_table(("stage", "level", "PSNR from true", "fd from true", "fd from drawn"), rows)


def _say(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
