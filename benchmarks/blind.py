"""Generated images named blind: what a reader sees who is shown no caption, against the judge's verdict.

    python -m benchmarks.blind draw --data emoji-core-128.zip --folder blind/

draws the first 25 captions of `val` with each of two pipelines, shuffles the 50 images, and writes them under numbers
that say nothing: `images.png`, all in one row; sheets of ten to look at (`sheet-1.png`, ...); `answers.csv` to fill in;
and `key.json`, which the reader doesn't open. For each number the reader writes up to five things it may show, the
likeliest first, separated by semicolons: as many as the judge has. `benchmarks.judge` compares them once the answers
are there.

    python -m benchmarks.blind show --folder blind/ --record judge-emoji-evaluator.json --sheet disagreements.png

shows where the two differ. An answer names the concept where it is one of its names, or where every word of it is a
word of the row's name, concept or CLDR keywords, and one that isn't `GENERIC` is a word of the name or the concept:
"city at dusk" names "cityscape at dusk", and "face" names no face (`names_the_concept`).
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

import zoo
from benchmarks.colour_requests import normalised
from benchmarks.hit_score import draw
from benchmarks.scoring import chosen
from zoo.data.draws import stream
from zoo.data.image_folder import ImageFolder
from zoo.errors import UsageError

PIPELINES = ("latent-text2img", "cascade-text2img")
EACH, SHOWN, A_SHEET = 25, 256, 10  # captions of each pipeline, pixels a side, images a sheet
GENERIC = frozenset(
    "face person man woman people button sign symbol mark no old big small medium large black white".split()  # noqa: SIM905
)
SMALL = frozenset("a an the with and of in at on".split())  # noqa: SIM905


def words(text: str) -> list[str]:
    """Its words, in lower case, without apostrophes and without the s of a plural."""
    said = normalised(text.replace("’", "").replace("'", "")).split()
    return [w.removesuffix("s") if len(w) > 3 and not w.endswith("ss") else w for w in said]


def names_the_concept(answers: Sequence[str], row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the answers is the row's concept, by the rule above; `rows` hold the concept's other names."""
    names = [r["name"] for r in rows if r["concept"] == row["concept"]] + [row["concept"]]
    of_names = {word for name in names for word in words(name)}
    of_row = of_names | {word for keyword in row.get("keywords") or [] for word in words(keyword)}
    for answer in answers:
        said = words(answer)
        if said and any(said == words(name) for name in names):
            return True
        if set(said) - SMALL <= of_row and (set(said) & of_names) - GENERIC:
            return True
    return False


def read_answers(folder: Path) -> dict[int, list[str]]:
    """Number -> what the reader wrote, likeliest first."""
    with (folder / "answers.csv").open(encoding="utf-8", newline="") as file:
        return {
            int(row["number"]): [a.strip() for a in row["names"].split(";") if a.strip()]
            for row in csv.DictReader(file)
        }


def read_images(folder: Path, sizes: Sequence[int]) -> list[Tensor]:
    """The drawn images, uint8 (3, size, size) each, by number from 1: each at the left of its own cell of a row."""
    with Image.open(folder / "images.png") as picture:
        row = torch.from_numpy(np.asarray(picture.convert("RGB")).transpose(2, 0, 1).copy())
    if row.shape[2] != len(sizes) * row.shape[1]:
        raise UsageError(f"'{folder}/images.png' holds no {len(sizes)} images in a row; draw them again")
    return [cell[:, :size, :size] for cell, size in zip(row.split(row.shape[1], dim=2), sizes, strict=True)]


def numbered_sheet(images: Sequence[Tensor], numbers: Sequence[int], *, columns: int = 5) -> Image.Image:
    """The images at 256 pixels with their numbers."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (SHOWN + 8), rows * (SHOWN + 28)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (image, number) in enumerate(zip(images, numbers, strict=True)):
        large = F.interpolate(image[None].float(), (SHOWN,) * 2, mode="bicubic").clamp(0, 255)[0]
        picture = Image.fromarray(large.round().to(torch.uint8).permute(1, 2, 0).numpy())
        left, top = (place % columns) * (SHOWN + 8), (place // columns) * (SHOWN + 28)
        sheet.paste(picture, (left, top + 20))
        pen.text((left + 4, top + 4), str(number), fill="black")
    return sheet


def disagreement_sheet(images: Sequence[Tensor], told: Sequence[Mapping[str, Any]], *, columns: int = 3) -> Image.Image:
    """The images on which reader and judge differ, with the caption, what each saw, and the judge's verdict."""
    side, wide, high = 128, 440, 144
    apart = [entry for entry in told if entry["reader_names_it"] != entry["hit"]]
    sheet = Image.new("RGB", (columns * wide, -(-len(apart) // columns) * high), "white")
    pen = ImageDraw.Draw(sheet)
    for place, entry in enumerate(apart):
        left, top = (place % columns) * wide, (place // columns) * high
        large = F.interpolate(images[entry["number"] - 1][None].float(), (side,) * 2, mode="bicubic").clamp(0, 255)[0]
        sheet.paste(Image.fromarray(large.round().to(torch.uint8).permute(1, 2, 0).numpy()), (left + 4, top + 8))
        why = "judge: hit" if entry["hit"] else "judge: concept, other style" if entry["concept_at_5"] else "judge: no"
        lines = [
            f"{entry['number']}: {entry['caption']}", "", f"reader: {'names it' if entry['reader_names_it'] else 'no'}",
            *(f"  {name}" for name in entry["reader"][:3]), why, *(f"  {name}" for name in entry["judge"][:3]),
        ]  # fmt: skip
        plain = "\n".join(line.translate({0x201C: '"', 0x201D: '"', 0x2019: "'"}) for line in lines)
        pen.text((left + side + 12, top + 4), plain, fill="black")
    return sheet


def main() -> None:
    """Draw the images and lay the sheets out, or show where reader and judge differ."""
    parser = argparse.ArgumentParser(description="Generated images to be named blind.")
    parser.add_argument("what", choices=["draw", "show"])
    parser.add_argument("--data", help="the emoji, a folder or zip with metadata.jsonl; to draw")
    parser.add_argument("--folder", required=True, type=Path, help="where the images go, or are")
    parser.add_argument("--record", type=Path, help="a record of benchmarks.judge; to show")
    parser.add_argument("--sheet", type=Path, help="where to write what is shown")
    options = parser.parse_args()
    if options.what == "show":
        if options.record is None or options.sheet is None:
            parser.error("show needs --record and --sheet")
        told = json.loads(options.record.read_text())["values"]["blind"]["images"]
        sizes = [entry["size"] for entry in json.loads((options.folder / "key.json").read_text())]
        disagreement_sheet(read_images(options.folder, sizes), told).save(options.sheet)
        return
    if options.data is None:
        parser.error("draw needs --data")
    split = ImageFolder(path=options.data, split="val", size=128)
    rows = chosen(range(len(split)), EACH * len(PIPELINES))
    made: list[tuple[Tensor, dict[str, Any]]] = []
    for place, name in enumerate(PIPELINES):
        mine = rows[place * EACH : (place + 1) * EACH]
        images = draw(zoo.build(name), [split.rows[i]["text"] for i in mine], seed=0, batch_size=EACH)
        made += [
            (image, {"pipeline": name, "row": i, "size": image.shape[-1]})
            for image, i in zip(images, mine, strict=True)
        ]
    options.folder.mkdir(parents=True, exist_ok=True)
    order = stream(0, "blind").permutation(len(made))
    shuffled = [made[int(i)] for i in order]
    cell = max(image.shape[-1] for image, _ in shuffled)
    cells = [F.pad(image, (0, cell - image.shape[-1], 0, cell - image.shape[-1]), value=255) for image, _ in shuffled]
    Image.fromarray(torch.cat(cells, dim=2).permute(1, 2, 0).numpy()).save(options.folder / "images.png")
    for first in range(0, len(shuffled), A_SHEET):
        part = [image for image, _ in shuffled[first : first + A_SHEET]]
        numbers = list(range(first + 1, first + 1 + len(part)))
        numbered_sheet(part, numbers).save(options.folder / f"sheet-{first // A_SHEET + 1}.png")
    (options.folder / "key.json").write_text(json.dumps([key for _, key in shuffled]) + "\n")
    answers = options.folder / "answers.csv"
    if not answers.exists():
        answers.write_text("number,names\n" + "".join(f"{n},\n" for n in range(1, len(shuffled) + 1)))
    print(f"{len(shuffled)} images in {options.folder}; write what they show into {answers}")


if __name__ == "__main__":
    main()
