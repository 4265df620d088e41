"""The images of the README and docs, drawn anew by the shipped weights; no seed is chosen, no image is left out.

python -m benchmarks.pictures
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import zoo
from benchmarks.record import ROOT
from zoo.cli.generate import DEFAULT_MODEL
from zoo.pipeline.generation import sheet

FOLDER = ROOT / "docs" / "images"
PROMPTS = (
    "red apple, 3d style", "cat face, noto style", "red heart, flat style", "pizza, cartoon style",
    "sun, twemoji style", "automobile, blob style", "mushroom, 3d style", "bicycle, flat style",
)  # fmt: skip
MORE = (
    "strawberry, 3d style", "rocket, flat style", "butterfly, twemoji style", "crescent moon, noto style",
    "birthday cake, cartoon style", "fish, blob style", "umbrella, firefox style", "blue heart, noto style",
)  # fmt: skip
SIDE, GAP, TEXT = 128, 6, 15


def labelled(rows: Sequence[tuple[str, Sequence[Image.Image]]], *, columns: Sequence[str] = ()) -> Image.Image:
    """Rows of images, each enlarged to 128 pixels by whole pixels, under its name; `columns` are captions on top."""
    font = ImageFont.load_default(size=TEXT)
    small = ImageFont.load_default(size=TEXT - 3)
    head = 2 * TEXT + GAP if columns else 0
    width = len(rows[0][1]) * (SIDE + GAP) - GAP
    named = sum(TEXT + GAP for name, _ in rows if name)
    out = Image.new("RGB", (width, head + named + len(rows) * (SIDE + 2 * GAP)), "white")
    draw = ImageDraw.Draw(out)
    for i, name in enumerate(columns):
        place = (i * (SIDE + GAP) + SIDE // 2, 0)
        draw.multiline_text(place, name.replace(", ", ",\n"), fill="#555", font=small, anchor="ma", align="center")
    y = head
    for name, pictures in rows:
        draw.text((2, y), name, fill="#222", font=font)
        y += TEXT + GAP if name else 0
        for i, picture in enumerate(pictures):
            out.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (i * (SIDE + GAP), y))
        y += SIDE + 2 * GAP
    return out


def default() -> Image.Image:
    """Sixteen captions, written down before they were drawn, by the pipeline that `zoo generate` draws with."""
    made = zoo.build(DEFAULT_MODEL)([*PROMPTS, *MORE], seed=0).images
    half = len(PROMPTS)
    rows = [labelled([("", made[:half])], columns=PROMPTS), labelled([("", made[half:])], columns=MORE)]
    whole = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for i, row in enumerate(rows):
        whole.paste(row, (0, i * rows[0].height))
    return whole


def side_by_side() -> Image.Image:
    """The same prompts for the latent model, for it with a pixel stage on top, and for the cascade."""
    rows = []
    for name, told in (
        ("latent-text2img", "latent diffusion, 64x64"),
        ("latent-sr-text2img", "the same, then super-resolution, 128x128"),
        ("cascade-text2img", "a cascade in pixels, 32 to 64 to 128"),
    ):
        rows.append((f"{name}: {told}", zoo.build(name)(list(PROMPTS), seed=0).images))
    return labelled(rows, columns=PROMPTS)


def stages() -> Image.Image:
    """The output of each stage of the cascade."""
    pipe = zoo.build("cascade-text2img")
    rows = [
        (f"{stage.name}, {stage.size}x{stage.size}", pipe(list(PROMPTS), seed=0, stages=i + 1).images)
        for i, stage in enumerate(pipe.stages)
    ]
    return labelled(rows, columns=PROMPTS)


def classes() -> Image.Image:
    """A row a class."""
    pipe = zoo.build("class2img")
    names: list[Any] = pipe.record["config"]["conditioners"]["label"]["names"]
    made = pipe(labels=[n for n in names for _ in range(8)], seed=0).images
    return labelled([(n, made[8 * i : 8 * i + 8]) for i, n in enumerate(names)])


def nothing() -> Image.Image:
    """Unconditional samples."""
    made = zoo.build("pixel-ddpm-32")(n=32, seed=0).images
    return sheet([p.resize((64, 64), Image.Resampling.NEAREST) for p in made], columns=16)


DRAWN = {"default": default, "side-by-side": side_by_side, "stages": stages, "classes": classes, "nothing": nothing}


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description="The pictures of the README and docs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DRAWN)}; all if not given")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder")
    options = parser.parse_args()
    if unknown := set(options.names) - set(DRAWN):
        parser.error(f"there is no picture {', '.join(sorted(unknown))}; choose of {', '.join(DRAWN)}")
    for name in options.names or DRAWN:
        path = options.out / f"{name}.png"
        # 256 colours look the same and need a third of the bytes.
        DRAWN[name]().quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path)


if __name__ == "__main__":
    main()
