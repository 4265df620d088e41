"""`zoo generate`: prompts, classes or a small image to images."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.model_options import Autoencoder, Copy, Loras, Overrides, Prediction, Sampler, Weights
from zoo.cli.say import say
from zoo.cli.threads import Threads
from zoo.schema.errors import RequestNote, UsageError
from zoo.schema.places import check_place

if TYPE_CHECKING:
    from zoo.config.check import Resolved
    from zoo.pipeline.pipeline import Checked
    from zoo.pipeline.space import SampleSpace

DEFAULT_MODEL = "cascade-text2img"  # the shipped one that draws best: its published hit score is the highest
LONGEST_NAME = 255  # bytes, on any file system in use


def _parse_size(size: str | None, space: SampleSpace) -> int | tuple[int, ...] | None:
    if size is None:
        return None
    parts = size.lower().split("x")
    wanted, most = space.size_words
    if not all(p.isdecimal() and p.isascii() and int(p) > 0 for p in parts) or (most is not None and len(parts) > most):
        raise UsageError(f"--size {size}: give {wanted}", code="size-invalid")
    return int(parts[0]) if len(parts) == 1 else tuple(int(p) for p in parts)


def _check_writable(output: str, count: int, *, grid: bool, space: SampleSpace, overwrite: bool) -> None:
    """UsageError for an output that can't be written, before the run."""
    if output == "-":
        raise UsageError(
            "'-' names no file, and pictures aren't written to standard output; give a file or a folder",
            code="output-unwritable",
        )
    _check_names([Path(output)], output)
    files = space.targets(output, count, grid=grid, overwrite=overwrite)
    _check_names(files, output)
    check_place(files[0], output)


def _check_names(files: Sequence[Path], output: str) -> None:
    size = max((len(os.fsencode(part)) for file in files for part in file.parts), default=0)
    if size > LONGEST_NAME:
        raise UsageError(
            f"'{output}' would make a file name of {size} bytes, over {LONGEST_NAME}; choose a shorter one",
            code="output-unwritable",
        )


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="CLASS", help="A class to draw, by name or number.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help=f"A pipeline's or model's name, its file or folder, an image of zoo's; {DEFAULT_MODEL}."),
    ] = None,
    weights: Weights = None,
    autoencoder: Autoencoder = None,
    prediction: Prediction = None,
    copy: Copy = None,
    lora: Loras = None,
    clip_skip: Annotated[
        int | None, typer.Option(min=0, help="Last layers of such a model's text encoder to leave out; 0.")
    ] = None,
    long_prompts: Annotated[
        str | None, typer.Option(help="Prompts longer than the model reads: refuse, cut or chunks.")
    ] = None,
    prompt_weighting: Annotated[
        str | None, typer.Option(help="Read (words:1.3) as weights: mean or empty, see docs/families.md.")
    ] = None,
    embeddings: Annotated[
        list[str] | None, typer.Option("--embedding", metavar="FILE[:TOKEN]", help="A learned token's file.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="IMAGE", help="Draw an image of zoo's again, but for what is given.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Images a prompt or class; 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same images; 0.")] = None,
    first: Annotated[int | None, typer.Option(min=0, help="Number of the seed's first sample; 0.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; super-resolution stages keep theirs.")] = None,
    sampler: Sampler = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    negative: Annotated[str | None, typer.Option(help="What to move away from.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels: 64 or HEIGHTxWIDTH. Of arrays each axis: 128, 8x16x16.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="A picture to start from, to enlarge, or that was measured.")
    ] = None,
    mask: Annotated[str | None, typer.Option(help="White where the picture is drawn anew.")] = None,
    depth: Annotated[str | None, typer.Option(help="A depth map to draw by, white nearest.")] = None,
    strength: Annotated[float | None, typer.Option(help="How much of the picture is drawn anew, up to 1.")] = None,
    overrides: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="An image file, an .npy of arrays, or a folder; out.png or out.npy."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="All images in one.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Number files from the beginning, over those that are there.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="Images a network call.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto is the best that is there.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by part: float16,autoencoder=float32.")
    ] = None,
    offload: Annotated[bool, typer.Option("--offload", help="Have one part at a time in the device's memory.")] = False,
    decode: Annotated[str | None, typer.Option(help="Decode whole, by rows (less memory) or by tiles.")] = None,
    quantize: Annotated[str | None, typer.Option(help="Weights in eight bits: int8 or fp8.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="The fast path; images change by rounding.")] = False,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print files and record as JSON.")] = False,
) -> None:
    """Draw images from prompts, classes or images."""
    import zoo
    from zoo.cli.earlier import again, with_noise
    from zoo.cli.early import check_call
    from zoo.cli.progress import step_bar
    from zoo.config.check import resolve
    from zoo.pipeline.request import check_count
    from zoo.pipeline.space import space_of
    from zoo.schema.names import free

    call: dict[str, Any] = {
        "n": n or 1,
        "seed": seed or 0,
        "first": first or 0,
        "negative": negative,
        "strength": strength,
    }
    call |= {"prompts": prompts or None, "labels": labels or None, "image": image, "mask": mask, "depth": depth}
    chosen: dict[str, Any] = {"sampler": sampler, "steps": steps, "guidance": guidance}
    chosen |= {"weights": weights, "autoencoder": autoencoder, "prediction": prediction, "copy": copy}
    chosen |= {"long_prompts": long_prompts, "prompt_weighting": prompt_weighting, "embeddings": embeddings or None}
    chosen |= {"clip_skip": clip_skip, "adapters": lora or None}
    chosen = {k: v for k, v in chosen.items() if v is not None}
    config: Any = model or DEFAULT_MODEL
    if config.endswith((".yaml", ".yml", ".json", ".png", ".npy")):
        config = Path(config)
    if start is not None:
        if model is not None:
            raise UsageError(
                "--from brings the image's own model; leave --model out, or --from", code="option-conflict"
            )
        config, call, size = again(start, call, chosen, size=size, fresh=(n, seed, first) != (None, None, None))
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", RequestNote)
        resolved = resolve(config, overrides, chosen)  # a wrong request is refused before torch is imported
    notes = _Notes(quiet=as_json)
    for one in noted:
        notes.say(str(one.message))
    count = _check_words(resolved, call, notes, model)
    check_count(count)
    space = space_of(resolved.config["stages"][-1])
    place = output or str(free(Path(space.default_file), overwrite=overwrite))
    lengths = _parse_size(size, space)
    note = space.size_note(lengths, f"'{resolved.config['name']}'")
    check_call(resolved, call, lengths)
    if note is not None:
        notes.say(note, also=space.size_note(lengths, "this pipeline"))
    _check_writable(place, count, grid=grid, space=space, overwrite=overwrite)
    with step_bar(quiet=as_json) as bar, warnings.catch_warnings():
        notes.take_warnings()
        bar.describe("loading")
        call = with_noise(call) | {"size": lengths, "batch_size": batch_size}
        checked: list[Checked] = []
        saving = {"offload": offload or None, "decode": decode, "weights": quantize}
        pipe = zoo.build(
            resolved, device=device, dtype=dtype, memory={k: v for k, v in saving.items() if v is not None},
            before_weights=lambda pipe: checked.append(pipe.check(**call)),
        )  # fmt: skip
        if fast:
            pipe.compile()
        bar.describe("drawing")
        made = pipe.draw(checked[0], callback=lambda p: bar.update(p.done, p.total))
    files = made.save(output or None, grid=grid, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"files": [str(f) for f in files], "record": made.record}))
        return
    refused = [i for i in made.record["images"] if "safety" in i and not i["safety"]["allowed"]]
    for file in files:
        typer.echo(str(file))
    if refused:
        say(f"{len(refused)} of {len(made)} pictures were refused: {refused[0]['safety']['reason']}")


class _Notes:
    """What is unusual about a request, each said once, without the place in the source that a warning has."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.said = quiet, set[str | None]()

    def say(self, note: str, *, also: str | None = None) -> None:
        """Print a note, unless it was; `also` is the same in other words."""
        if not self.quiet and note not in self.said:
            say(f"note: {note}")
        self.said |= {note, also}

    def take_warnings(self) -> None:
        """Say warnings that are notes, until the block `warnings.catch_warnings` ends."""
        plain = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            self.say(str(message)) if issubclass(category, RequestNote) else plain(message, category, *rest, **more)

        warnings.simplefilter("always", RequestNote)
        warnings.showwarning = show


def _check_words(resolved: Resolved, call: Mapping[str, Any], notes: _Notes, model: str | None) -> int:
    """How many images there will be; refuses unknown words and says what is unusual, before torch is imported."""
    from zoo.conditioners.words import refuse_unknown, words_of

    prompts, negative = call["prompts"] or [], call["negative"]
    unwanted = [negative] if isinstance(negative, str) else negative or []
    own = "" if model is None or model == DEFAULT_MODEL else f" --model {shlex.quote(model)}"
    if len(prompts) > 1 and not any(len(prompt.split()) > 1 for prompt in prompts):
        notes.say(
            f"each of the {len(prompts)} words is drawn as a prompt of its own; for one picture of all quote them: "
            f'"{" ".join(prompts)}"'
        )
    for words in words_of(resolved):
        readings = [words.read(prompt) for prompt in dict.fromkeys([*prompts, *unwanted])]
        refuse_unknown(readings, "zoo prompts" + own)
        for note in [note for reading in readings for note in reading.notes]:
            notes.say(note)
        if not any(prompt.strip() for prompt in prompts):
            notes.say("no prompt was given, so anything may come; `zoo prompts` lists what the model knows")
    return call["n"] * max(1, len(prompts), len(call["labels"] or []))
