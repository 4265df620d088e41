"""Generated images named blind: a reader who is shown no caption, against the judge's verdict.

    python -m benchmarks.blind draw --data emoji-core-128.zip --folder blind/ --set second

draws 50 captions of `val` by the pipelines of a set, shuffles the images, and writes them under random
numbers: `images.webp`, all in one row; sheets of ten to look at (`sheet-1.png`, ...); `answers.csv` to fill in; and
`key.json`, which the reader doesn't open. `benchmarks.judge` compares them once the answers are there.

| set | images | the reader writes for each | and hits where |
|---|---|---|---|
| `first` | captions 1 to 50, two pipelines | up to five names, in own words | one names the concept |
| `second` | captions 99 to 148, all three | up to five names of `concepts.txt`, and a | one is the concept's, and |
| | | style, by examples (`styles.png`) | the style is the caption's |
| `third` | captions 149 to 198, the cascade of the weights trained on a GPU | as the second | as the second |

The judge hits where the concept is among its five nearest of the list and the style is the caption's, so the second
set asks the reader for the same; the first left out the style and the list. An answer of the first
names the concept where it is one of its names, or where every word of it is a word of the row's name, concept or CLDR
keywords, and one that isn't `GENERIC` is a word of the name or the concept: "city at dusk" names "cityscape at dusk",
and "face" names no face (`names_the_concept`). One of the second and third is the concept's where it is one of its
names, case and punctuation apart (`picks_the_concept`). Nobody has looked at the images of these two before their
readers.

    python -m benchmarks.blind show --folder blind/ --record judge-emoji-evaluator.json --sheet disagreements.png

shows where the two differ.
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
from zoo.data.captions import style_of
from zoo.data.image_folder import ImageFolder
from zoo.diffusion.draws import stream
from zoo.schema.errors import UsageError

# Set -> its pipelines, which share the captions in turn, and how many captions of the shuffled split lie before them.
SETS = {
    "first": (("latent-text2img", "cascade-text2img"), 0),
    "second": (("cascade-text2img", "latent-text2img", "latent-sr-text2img"), 98),
    "third": (("cascade-text2img",), 148),
}
COUNT, SHOWN, A_SHEET = 50, 256, 10  # captions of a set, pixels a side, images a sheet
ANSWERS, SECOND = "answers.csv", "answers-second.csv"  # of a set's reader, and of another one
EXAMPLES, EXAMPLE = 14, 96  # training images of each style, pixels a side
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


def read_answers(folder: Path, file: str = ANSWERS) -> dict[int, list[str]]:
    """Number -> what the reader wrote, likeliest first."""
    with (folder / file).open(encoding="utf-8", newline="") as opened:
        return {
            int(row["number"]): [a.strip() for a in row["names"].split(";") if a.strip()]
            for row in csv.DictReader(opened)
        }


def picks_the_concept(answers: Sequence[str], row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the answers is one of the names of the row's concept; `rows` hold them."""
    names = {tuple(words(r["name"])) for r in rows if r["concept"] == row["concept"]} | {tuple(words(row["concept"]))}
    return any(tuple(words(answer)) in names for answer in answers)


def listed(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Concept -> the name that `concepts.txt` gives it: a person's, where it has one, or the shortest."""
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row["concept"], set()).add(row["name"])
    return {c: min(names[c], key=lambda n: ("person" not in n.split(), len(n), n)) for c in sorted(names)}


def read_styles(folder: Path, file: str = ANSWERS) -> dict[int, str] | None:
    """Number -> the style that the reader saw, "flat style"; None for a set without styles."""
    with (folder / file).open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    if "style" not in rows[0]:
        return None
    said = {int(row["number"]): (row["style"] or "").strip().removesuffix("style").strip() for row in rows}
    return {number: f"{style} style" for number, style in said.items() if style}


def read_images(folder: Path, sizes: Sequence[int]) -> list[Tensor]:
    """The drawn images, uint8 (3, size, size) each, by number from 1: each at the left of its own cell of a row."""
    with Image.open(folder / "images.webp") as picture:
        row = torch.from_numpy(np.asarray(picture.convert("RGB")).transpose(2, 0, 1).copy())
    if row.shape[2] != len(sizes) * row.shape[1]:
        raise UsageError(
            f"'{folder}/images.webp' holds no {len(sizes)} images in a row; draw them again", code="blind-images-unfit"
        )
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


def reader_hits(entry: Mapping[str, Any]) -> bool:
    """Whether the reader's answer is a hit, of an image of a record: with the style, where the set has one."""
    return bool(entry.get("reader_hit", entry["reader_names_it"]))


def style_sheet(rows: Sequence[Mapping[str, Any]], images: np.ndarray) -> Image.Image:
    """Some training images of each style, a row each under its name."""
    styles = sorted({style_of(row) for row in rows})
    sheet = Image.new("RGB", (EXAMPLES * (EXAMPLE + 4), len(styles) * (EXAMPLE + 24)), "white")
    pen = ImageDraw.Draw(sheet)
    for line, style in enumerate(styles):
        mine = [i for i, row in enumerate(rows) if style_of(row) == style]
        pen.text((4, line * (EXAMPLE + 24) + 4), style, fill="black")
        for place, which in enumerate(stream(0, "blind styles", line).permutation(len(mine))[:EXAMPLES]):
            picture = Image.fromarray(images[mine[int(which)]].transpose(1, 2, 0)).resize((EXAMPLE, EXAMPLE))
            sheet.paste(picture, (place * (EXAMPLE + 4), line * (EXAMPLE + 24) + 20))
    return sheet


def disagreement_sheet(images: Sequence[Tensor], told: Sequence[Mapping[str, Any]], *, columns: int = 3) -> Image.Image:
    """The images on which reader and judge differ, with the caption, what each saw, and the judge's verdict."""
    side, wide, high = 128, 440, 144
    apart = [entry for entry in told if reader_hits(entry) != entry["hit"]]
    sheet = Image.new("RGB", (columns * wide, -(-len(apart) // columns) * high), "white")
    pen = ImageDraw.Draw(sheet)
    for place, entry in enumerate(apart):
        left, top = (place % columns) * wide, (place // columns) * high
        large = F.interpolate(images[entry["number"] - 1][None].float(), (side,) * 2, mode="bicubic").clamp(0, 255)[0]
        sheet.paste(Image.fromarray(large.round().to(torch.uint8).permute(1, 2, 0).numpy()), (left + 4, top + 8))
        why = "judge: hit" if entry["hit"] else "judge: concept, other style" if entry["concept_at_5"] else "judge: no"
        lines = [
            f"{entry['number']}: {entry['caption']}", "", f"reader: {'names it' if entry['reader_names_it'] else 'no'}"
            + (f", {entry['reader_style']}" if entry.get("reader_style") else ""),
            *(f"  {name}" for name in entry["reader"][:3]), why, *(f"  {name}" for name in entry["judge"][:3]),
        ]  # fmt: skip
        plain = "\n".join(line.translate({0x201C: '"', 0x201D: '"', 0x2019: "'"}) for line in lines)
        pen.text((left + side + 12, top + 4), plain, fill="black")
    return sheet


def drawn(data: str, which: str) -> list[tuple[Tensor, dict[str, Any]]]:
    """The images of a set, each uint8 (3, size, size), with the pipeline, the row of `val` and the size."""
    pipelines, before = SETS[which]
    split = ImageFolder(path=data, split="val", size=128)
    rows = chosen(range(len(split)), before + COUNT)[before:]
    made: list[tuple[Tensor, dict[str, Any]]] = []
    for name, mine in zip(pipelines, np.array_split(np.array(rows), len(pipelines)), strict=True):
        images = draw(zoo.build(name), [split.rows[i]["text"] for i in mine], seed=0, batch_size=len(mine))
        made += [
            (image, {"pipeline": name, "row": int(i), "size": image.shape[-1]})
            for image, i in zip(images, mine, strict=True)
        ]
    return made


def main() -> None:
    """Draw the images and lay the sheets out, or show where reader and judge differ."""
    parser = argparse.ArgumentParser(description="Generated images to be named blind.")
    parser.add_argument("what", choices=["draw", "show"])
    parser.add_argument("--data", help="the emoji, a folder or zip with metadata.jsonl; to draw")
    parser.add_argument("--folder", required=True, type=Path, help="where the images go, or are")
    parser.add_argument("--set", default="second", choices=sorted(SETS), help="which captions and pipelines; to draw")
    parser.add_argument("--record", type=Path, help="a record of benchmarks.judge; to show")
    parser.add_argument("--sheet", type=Path, help="where to write what is shown")
    options = parser.parse_args()
    if options.what == "show":
        if options.record is None or options.sheet is None:
            parser.error("show needs --record and --sheet")
        part = "blind" if read_styles(options.folder) is None else "blind_with_style"
        told = json.loads(options.record.read_text())["values"][part]["images"]
        sizes = [entry["size"] for entry in json.loads((options.folder / "key.json").read_text())]
        disagreement_sheet(read_images(options.folder, sizes), told).save(options.sheet)
        return
    if options.data is None:
        parser.error("draw needs --data")
    made = drawn(options.data, options.set)
    options.folder.mkdir(parents=True, exist_ok=True)
    order = stream(0, "blind").permutation(len(made))
    shuffled = [made[int(i)] for i in order]
    cell = max(image.shape[-1] for image, _ in shuffled)
    cells = [F.pad(image, (0, cell - image.shape[-1], 0, cell - image.shape[-1]), value=255) for image, _ in shuffled]
    # Nearly without loss; the judge is asked about what was written.
    Image.fromarray(torch.cat(cells, dim=2).permute(1, 2, 0).numpy()).save(
        options.folder / "images.webp", quality=95, method=6
    )
    for first in range(0, len(shuffled), A_SHEET):
        part = [image for image, _ in shuffled[first : first + A_SHEET]]
        numbers = list(range(first + 1, first + 1 + len(part)))
        numbered_sheet(part, numbers).save(options.folder / f"sheet-{first // A_SHEET + 1}.png")
    (options.folder / "key.json").write_text(json.dumps([key for _, key in shuffled]) + "\n")
    answers = options.folder / "answers.csv"
    blank = "number,names" if options.set == "first" else "number,names,style"
    if not answers.exists():
        empty = "," * blank.count(",")
        answers.write_text(blank + "\n" + "".join(f"{n}{empty}\n" for n in range(1, len(shuffled) + 1)))
    if options.set != "first":
        every = ImageFolder(path=options.data, size=128)
        (options.folder / "concepts.txt").write_text("\n".join(listed(every.rows).values()) + "\n")
        training = ImageFolder(path=options.data, split="train", size=128)
        style_sheet(training.rows, training.images()).save(options.folder / "styles.png")
    print(f"{len(shuffled)} images in {options.folder}; write what they show into {answers}")


if __name__ == "__main__":
    main()
