"""`zoo generate`: prompts, classes or a small picture to pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.errors import UsageError

if TYPE_CHECKING:
    from zoo.space import SampleSpace

LONGEST_NAME = 255  # bytes, on any file system in use


def _parse_size(size: str | None, space: SampleSpace) -> int | tuple[int, ...] | None:
    if size is None:
        return None
    parts = size.lower().split("x")
    wanted, most = space.size_words
    if not all(p.isdecimal() and p.isascii() and int(p) > 0 for p in parts) or (most is not None and len(parts) > most):
        raise UsageError(f"--size {size}: give {wanted}")
    return int(parts[0]) if len(parts) == 1 else tuple(int(p) for p in parts)


def _check_writable(output: str, count: int, *, grid: bool, space: SampleSpace) -> None:
    """Tell about an output that can't be written before the run, not after it."""
    _check_names([Path(output)], output)
    files = space.targets(output, count, grid=grid)
    _check_names(files, output)
    folder = files[0].absolute().parent
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"'{output}' can't be written: '{place}' is a file; choose another place")
            if not os.access(place, os.W_OK | os.X_OK):
                raise UsageError(f"'{output}' can't be written: no permission for '{place}'; choose another place")
            return


def _check_names(files: Sequence[Path], output: str) -> None:
    size = max((len(os.fsencode(part)) for file in files for part in file.parts), default=0)
    if size > LONGEST_NAME:
        raise UsageError(
            f"'{output}' would make a file name of {size} bytes, over {LONGEST_NAME}; choose a shorter one"
        )


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="CLASS", help="A class to draw, by name or number.")
    ] = None,
    model: Annotated[str, typer.Option(help="A pipeline's name or a config file.")] = "latent-text2img",
    n: Annotated[int, typer.Option("-n", min=1, help="Pictures a prompt or class.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Another sampler; see `zoo list sampler`.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to move away from.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels: 64 or HEIGHTxWIDTH. Of arrays each axis: 128, 8x16x16.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="A picture to start from, to enlarge, or that was measured.")
    ] = None,
    mask: Annotated[str | None, typer.Option(help="White where the picture is drawn anew.")] = None,
    strength: Annotated[float | None, typer.Option(help="How much of the picture is drawn anew, up to 1.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the config.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="A picture file, an .npy of arrays, or a folder; out.png or out.npy."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="All pictures in one.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a network call.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is the best that is there.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="The fast path; pictures change by rounding.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print files and record as JSON.")] = False,
) -> None:
    """Draw pictures from prompts, classes or pictures."""
    import zoo
    from zoo.cli.progress import step_bar
    from zoo.config.check import resolve

    # A wrong request is told at once, before torch is imported.
    resolved = resolve(model, overrides, {"sampler": sampler, "steps": steps, "guidance": guidance})
    count = n * max(1, len(prompts or []), len(labels or []))
    from zoo.space import space_of

    space = space_of(resolved.config["stages"][-1])
    output = output or space.default_file
    lengths = _parse_size(size, space)
    _check_writable(output, count, grid=grid, space=space)
    with step_bar(quiet=as_json) as bar:
        bar.describe("loading")
        pipe = zoo.build(resolved, device=device, dtype=dtype)
        if fast:
            pipe.compile()
        bar.describe("drawing")
        made = pipe(
            prompts or None, labels=labels or None, negative=negative, n=n, seed=seed, size=lengths, image=image,
            mask=mask, strength=strength, batch_size=batch_size, callback=lambda p: bar.update(p.done, p.total),
        )  # fmt: skip
    files = made.save(output, grid=grid)
    if as_json:
        typer.echo(json.dumps({"files": [str(f) for f in files], "record": made.record}))
        return
    refused = [i for i in made.record["images"] if "safety" in i and not i["safety"]["allowed"]]
    for file in files:
        typer.echo(str(file))
    if refused:
        typer.echo(f"{len(refused)} of {len(made)} pictures were refused: {refused[0]['safety']['reason']}", err=True)
