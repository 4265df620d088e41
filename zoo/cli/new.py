"""`zoo new`: a starter recipe."""

from __future__ import annotations

import json
import re
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

    Captions are those of metadata.jsonl, or of NAME.txt beside NAME.png. Raises UsageError where images have none.
    """
    from zoo.schema.files import write_atomically

    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder; give one with images and their captions", code="data-missing")
    metadata = folder / "metadata.jsonl"
    said = []
    if metadata.exists():
        rows = _read(folder)
    else:
        rows = _beside(folder)
        said.append(f"wrote '{metadata}' from the captions beside the images")
    if len(rows) < FEWEST:
        raise UsageError(f"'{folder}' has {len(rows)} captioned images; give at least {FEWEST}", code="data-too-few")
    if not any(row.get("split") for row in rows):
        rows = [{**row, "split": "val" if i % VALIDATION == VALIDATION - 1 else "train"} for i, row in enumerate(rows)]
        if not any(row["split"] == "val" for row in rows):
            rows[-1]["split"] = "val"
        if metadata.exists():
            write_atomically(folder / "metadata.before.jsonl", metadata.read_bytes())
            said.append(f"'{metadata}' had no splits and has them now; as it was: 'metadata.before.jsonl'")
        write_atomically(metadata, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    lacking = sorted({"train", "val"} - {row.get("split") for row in rows})
    if lacking:
        raise UsageError(f"'{metadata}' has no rows of split {' or '.join(lacking)}; add some", code="data-split-empty")
    return rows, said


def _read(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder's metadata, as training reads them; UsageError for the first line that is none."""
    from zoo.data.image_folder import FolderSource

    source = FolderSource(str(folder))
    if source.broken:
        raise UsageError(source.broken[0].sentence, code="data-row-broken")
    return [dict(row) for row in source.rows]


def _beside(folder: Path) -> list[dict[str, Any]]:
    """Rows of images with a text file of the same name beside them."""
    from zoo.data.image_sets import hidden
    from zoo.images.decode import read_file

    rows, without = [], 0
    for image in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES):
        name = image.relative_to(folder).as_posix()
        if hidden(name):
            continue
        caption = image.with_suffix(".txt")
        if not caption.is_file():
            without += 1
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
        raise UsageError(
            f"the {without} images in '{folder}' have no captions; write NAME.txt beside NAME.png, or a metadata.jsonl "
            'with lines like {"file_name": "NAME.png", "text": "..."}',
            code="caption-missing",
        )
    if without:
        count = f"{without} of {without + len(rows)}"
        raise UsageError(f"{count} images in '{folder}' have no NAME.txt beside them; add it", code="caption-missing")
    return rows
