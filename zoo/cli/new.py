"""`zoo new`: a starter recipe."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer

from zoo.schema.errors import UsageError

STARTERS = Path(__file__).resolve().parent.parent / "starters"
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
VALIDATION = 20  # every such row of data without splits is kept for validation
FEWEST = 4  # images
LONGEST_CAPTION = 2**20  # bytes


class Starter(StrEnum):
    """What a starter recipe makes."""

    text2img = "text2img"
    lora = "lora"


def new(
    starter: Annotated[
        Starter, typer.Argument(help="text2img: a model of one's own; lora: a LoRA of the shipped one.")
    ],
    folder: Annotated[Path, typer.Argument(help="Images with captions: metadata.jsonl, or NAME.txt beside NAME.png.")],
    name: Annotated[str | None, typer.Option(help="Of the weights; the folder's if not given.")] = None,
    size: Annotated[int, typer.Option(help="Pixels a side, a multiple of 8.", min=8)] = 32,
    steps: Annotated[int, typer.Option(help="Training steps.", min=10)] = 5000,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the two files go.")] = Path(),
) -> None:
    """Write a recipe that trains on a folder of captioned images, and of a model a pipeline that draws with it."""
    from zoo.schema.files import write_atomically
    from zoo.schema.safe_yaml import parse_yaml

    if size % 8:
        raise UsageError(f"--size {size}: give a multiple of 8", code="size-invalid")
    rows, said = captioned(folder)
    name = name or re.sub(r"[^\w.+-]+", "-", folder.resolve().name).strip("-._+") or "own"
    if not re.fullmatch(r"[^\W_][\w.+-]{0,99}", name):
        raise UsageError(f"--name '{name[:60]}': give a plain word, which names files", code="name-invalid")
    made = {"recipe": out / f"{name}.yaml", "draw": out / f"{name}-draw.yaml"}
    if starter is Starter.lora:
        del made["draw"]  # it draws with the pipeline that it adapts
    recipe = made["recipe"]
    with_it = (
        f"--model {made['draw'].as_posix()}" if "draw" in made else f"--lora runs/{name}/export/{name}.safetensors"
    )
    taken = [place for place in made.values() if place.exists()]
    if taken:
        raise UsageError(f"'{taken[0]}' is there already; choose another --name or --out", code="output-taken")
    texts = list(dict.fromkeys(row["text"] for row in rows))
    train = [row for row in rows if row["split"] == "train"]
    every = max(1, steps // 10)
    values = {
        "name": name, "file": recipe.as_posix(), "with": with_it, "size": size, "images": len(rows),
        "run": Path(os.path.relpath(Path("runs") / name, out)).as_posix(),
        "path": json.dumps(folder.as_posix()), "prompts": json.dumps(texts[:: max(1, len(texts) // 8)][:8]),
        "prompt": " ".join(re.sub(r'["\\$`!]', "", texts[0]).split()),
        "steps": steps, "batch": min(32, len(train)), "warmup": min(200, steps // 10), "decay": steps // 2,
        "every": every, "average": 0.999 if steps >= 5000 else round(max(0.5, 1.0 - 5.0 / steps), 4),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for template, place in made.items():
        text = Template((STARTERS / f"{starter.value}.{template}.yaml").read_text(encoding="utf-8")).substitute(values)
        parse_yaml(text, source=str(place))
        write_atomically(place, text.encode())
        typer.echo(str(place))
    for line in said:
        typer.echo(line, err=True)
    typer.echo(f"then: zoo train {recipe.as_posix()}    # or, less well, in ten minutes: --seconds 600", err=True)
    typer.echo(f'      zoo generate "{values["prompt"]}" {with_it}', err=True)


def captioned(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a folder's metadata.jsonl, which is written where there is none, with splits; and what was done.

    Captions are those of metadata.jsonl, of metadata.csv, or of NAME.txt beside NAME.png. Raises UsageError where
    images have none, and for images that can't be read.
    """
    from zoo.images.decode import read_file
    from zoo.schema.files import write_atomically

    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder; give one with images and their captions", code="data-missing")
    metadata = folder / "metadata.jsonl"
    said = []
    table = folder / "metadata.csv"
    if metadata.exists() or table.exists():
        rows, read = _read(folder)
        if not metadata.exists() and not any(row.get("split") for row in rows):
            said.append(f"wrote '{metadata}' from '{table}', with splits")
    else:
        rows, read = _beside(folder), lambda name: read_file(folder / name)
        said.append(f"wrote '{metadata}' from the captions beside the images")
    if len(rows) < FEWEST:
        raise UsageError(f"'{folder}' has {len(rows)} captioned images; give at least {FEWEST}", code="data-too-few")
    whole = any(row.get("split") for row in rows)
    if not whole:
        rows = [{**row, "split": "val" if i % VALIDATION == VALIDATION - 1 else "train"} for i, row in enumerate(rows)]
        if not any(row["split"] == "val" for row in rows):
            rows[-1]["split"] = "val"
    lacking = sorted({"train", "val"} - {row.get("split") for row in rows})
    if lacking:
        raise UsageError(f"'{folder}' has no rows of split {' or '.join(lacking)}; add some", code="data-split-empty")
    _check(folder, rows, read)
    if not whole:
        if metadata.exists():
            write_atomically(folder / "metadata.before.jsonl", metadata.read_bytes())
            said.append(f"'{metadata}' had no splits and has them now; as it was: 'metadata.before.jsonl'")
        write_atomically(metadata, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return rows, said


def _read(folder: Path) -> tuple[list[dict[str, Any]], Callable[[str], bytes]]:
    """The rows of a folder's metadata and what reads a file of it; UsageError for the first line that is no row."""
    from zoo.data.image_folder import FolderSource

    source = FolderSource(str(folder))
    if source.broken:
        raise UsageError(source.broken[0].sentence, code="data-row-broken")
    return [dict(row) for row in source.rows], source.bytes_of


def _check(folder: Path, rows: list[dict[str, Any]], read: Callable[[str], bytes]) -> None:
    """UsageError that names what training could not use: empty captions, absent files, what is no image."""
    from concurrent.futures import ThreadPoolExecutor

    from zoo.data.captions import refuse_empty
    from zoo.data.dataset import THREADS
    from zoo.images.decode import open_picture

    refuse_empty(rows)

    def trouble(row: dict[str, Any]) -> UsageError | None:
        name = row["file_name"]
        try:
            open_picture(read(name), name=name, where=str(folder))
        except UsageError as error:
            return error
        return None

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:  # decoding releases the GIL
        found = [error for error in threads.map(trouble, rows) if error is not None]
    if found:
        said = "; ".join(str(error) for error in found[:3])
        count = f"{len(found)} of {len(rows)} images can't be used: " if len(rows) > 1 else ""
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        told = f"{count}{said}{more}; mend them, or take their rows out"
        if all(error.code == "file-missing" for error in found):
            raise UsageError(told, code="file-missing")
        raise UsageError(told, code="image-damaged")


def _beside(folder: Path) -> list[dict[str, Any]]:
    """Rows of images with a text file of the same name beside them."""
    from zoo.data.captions import named
    from zoo.data.image_sets import hidden
    from zoo.images.decode import read_file

    rows: list[dict[str, Any]] = []
    without: list[str] = []
    for image in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES):
        name = image.relative_to(folder).as_posix()
        if hidden(name):
            continue
        caption = image.with_suffix(".txt")
        if not caption.is_file():
            without.append(name)
            continue
        data = read_file(caption, what="caption", limit=LONGEST_CAPTION)
        try:
            text = " ".join(data.decode("utf-8-sig").split())
        except UnicodeDecodeError as error:
            said = f"byte {error.start + 1} is 0x{data[error.start]:02x}"
            raise UsageError(
                f"the caption '{caption}' is not UTF-8 ({said}); save it as UTF-8", code="metadata-unreadable"
            ) from error
        rows.append({"file_name": name, "text": text})
    if without and not rows:
        shown = next((name for name in without if _caption_of(name)), without[0])
        told = "; names of files and folders are not read as captions" if _caption_of(shown) else ""
        example = json.dumps({"file_name": shown, "text": _caption_of(shown) or "..."}, ensure_ascii=False)
        raise UsageError(
            f"the {len(without)} images in '{folder}' have no captions; write NAME.txt beside NAME.png, a metadata.csv "
            f"with the columns file_name and text, or a metadata.jsonl with a line for each, like {example}{told}",
            code="caption-missing",
        )
    if without:
        count = f"{len(without)} of {len(without) + len(rows)}"
        raise UsageError(
            f"{count} images in '{folder}' have no NAME.txt beside them: {named(without)}; add it",
            code="caption-missing",
        )
    return rows


def _caption_of(name: str) -> str:
    """What a file's folder or name says of it, as words: `cat/001.png` is a cat, `red_circle_01.png` a red circle."""
    folder, _, file = name.rpartition("/")
    said = folder.rpartition("/")[2] or file.rpartition(".")[0]
    return " ".join(re.sub(r"[\W\d_]+", " ", said).split())
