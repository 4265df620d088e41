"""Rebuilds emoji-core-128.zip, the data of the shipped weights, from its npm packages.

    pip install resvg-py==0.5.0
    python recipes/emoji/prepare.py emoji-core-128.zip --packages tarballs/

`rows.csv.xz` beside this file lists every picture that may be trained on: style, code points, which icon it is, split,
name and keywords. Nothing else is made: pairs and concepts kept for evaluation are in no row.

A package is read from its tarball in `--packages`; what isn't there is fetched by `npm pack`, from the registry that
npm is set up for. Each SVG is drawn by resvg on white and averaged over areas. Nothing in a package is run.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import lzma
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CANVAS, DRAWN, SIDE = 256, 240, 128  # pixels: the white canvas, the drawing on it, the picture
QUALITY = 90
ROWS = Path(__file__).with_name("rows.csv.xz")
LARGEST_MEMBER = 64 * 2**20  # bytes of one file in a package

# style -> package, version, what captions call the style, family, licence of the pictures
STYLES = {
    "fluent_3d": ("@lobehub/fluent-emoji-3d", "1.1.0", "3d style", "fluent", "MIT"),
    "fluent_flat": ("@iconify-json/fluent-emoji-flat", "1.2.6", "flat style", "fluent", "MIT"),
    "fluent_hc": ("@iconify-json/fluent-emoji-high-contrast", "1.2.6", "black and white line style", "fluent", "MIT"),
    "noto": ("@iconify-json/noto", "1.2.9", "noto style", "noto", "Apache-2.0"),
    "noto_blob": ("@iconify-json/noto-v1", "1.2.5", "blob style", "noto_blob", "Apache-2.0"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5", "twemoji style", "twemoji", "CC-BY-4.0"),
    "fxemoji": ("@iconify-json/fxemoji", "1.2.2", "firefox style", "fxemoji", "CC-BY-4.0"),
    "emojitwo": ("@iconify-json/emojione", "1.2.3", "cartoon style", "emojitwo", "CC-BY-4.0"),
}


def tarball(style: str, folder: Path) -> Path:
    """The package of a style in `folder`, fetched there by npm if it is missing."""
    package, version, *_ = STYLES[style]
    return fetched(package, version, folder)


def fetched(package: str, version: str, folder: Path) -> Path:
    """The tarball of a package in `folder`, fetched there by npm if it is missing; SystemExit where that fails."""
    path = folder / f"{package.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"fetching {package}@{version}", file=sys.stderr)
        command = ["npm", "pack", "--ignore-scripts", f"{package}@{version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"error: '{path}' is missing and 'npm pack' could not fetch it ({error})") from error
    return path


class Svgs:
    """An icon set of the Iconify kind: `icons.json` with SVG bodies by name."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as archive:
            self.set = json.loads(_member(archive, "package/icons.json"))

    def names(self) -> list[str]:
        """The icons that are no alias."""
        return list(self.set["icons"])

    def draw(self, name: str) -> Image.Image:
        """The icon, 240 pixels on its longer side, RGBA."""
        import resvg_py

        alias = self.set.get("aliases", {}).get(name, {"parent": name})
        icon = self.set["icons"][alias["parent"]]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", self.set.get("width", 16))
        height = icon.get("height", self.set.get("height", 16))
        body = icon["body"]
        if alias.get("hFlip"):
            body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
        # A square view, so that what is longer than wide is drawn whole and in the middle.
        side = max(width, height)
        box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{DRAWN}" height="{DRAWN}" viewBox="{box}">{body}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWN, height=DRAWN, skip_system_fonts=True)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


class Pictures:
    """A set of ready pictures, `assets/CODE-POINTS.webp`."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as archive:
            self.files = {
                Path(m.name).stem: _member(archive, m.name)
                for m in archive
                if m.isfile() and m.name.startswith("package/assets/") and m.name.endswith(".webp")
            }

    def names(self) -> list[str]:
        """The pictures' names."""
        return list(self.files)

    def draw(self, name: str) -> Image.Image:
        """The picture, scaled to 240 pixels on its longer side, RGBA."""
        with Image.open(io.BytesIO(self.files[name])) as picture:
            picture = picture.convert("RGBA")
        scale = DRAWN / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        return picture.resize(size, Image.Resampling.LANCZOS)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(name)
    stream = archive.extractfile(member) if member.isfile() and member.size <= LARGEST_MEMBER else None
    if stream is None:
        raise SystemExit(f"error: '{name}' in '{archive.name}' is no plain file of at most {LARGEST_MEMBER} bytes")
    return stream.read()


def on_white(drawing: Image.Image) -> Image.Image:
    """In the middle of the white canvas, then the mean of every 2x2 pixels, halves rounded up: 128x128 RGB."""
    canvas = Image.new("RGBA", (CANVAS, CANVAS), "white")
    canvas.alpha_composite(drawing, ((CANVAS - drawing.width) // 2, (CANVAS - drawing.height) // 2))
    step = CANVAS // SIDE
    fine = np.asarray(canvas.convert("RGB"), dtype=np.uint32).reshape(SIDE, step, SIDE, step, 3)
    return Image.fromarray(((fine.sum(axis=(1, 3)) + step * step // 2) // (step * step)).astype(np.uint8))


def webp(picture: Image.Image) -> bytes:
    """As it is stored."""
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY)
    return out.getvalue()


def read_rows() -> Iterator[dict[str, str]]:
    """The committed list."""
    with lzma.open(ROWS, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def metadata(row: Mapping[str, str], number: int) -> dict[str, Any]:
    """A row of metadata.jsonl."""
    *_, phrase, family, licence = STYLES[row["style"]]
    emoji = row["emoji"]
    return {
        "file_name": f"images/{number:05d}.webp", "text": f"{row['name']}, {phrase}", "concept": row["concept"],
        "emoji": emoji, "family": family, "group": row["group"], "hex": row["hex"],
        "keywords": row["keywords"].split("|") if row["keywords"] else [], "license": licence, "name": row["name"],
        "split": row["split"], "style": row["style"], "subgroup": row["subgroup"],
    }  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the zip to write")
    parser.add_argument("--packages", type=Path, default=Path("packages"), help="folder of the npm tarballs")
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=list(STYLES), help="only these styles")
    options = parser.parse_args()
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise SystemExit("error: drawing needs resvg-py: pip install resvg-py==0.5.0") from None

    wanted = [(number, row) for number, row in enumerate(read_rows()) if row["style"] in options.styles]
    sets: dict[str, Svgs | Pictures] = {}
    for style in options.styles:
        path = tarball(style, options.packages)
        sets[style] = Pictures(path) if style == "fluent_3d" else Svgs(path)

    def draw(job: tuple[int, Mapping[str, str]]) -> bytes:
        return webp(on_white(sets[job[1]["style"]].draw(job[1]["icon"])))

    temporary = options.out.with_name(options.out.name + ".part")
    lines = []
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive, ThreadPoolExecutor() as pool:
        for done, ((number, row), data) in enumerate(zip(wanted, pool.map(draw, wanted), strict=True), 1):
            line = metadata(row, number)
            # A fixed date: the same packages give the same zip.
            archive.writestr(zipfile.ZipInfo(line["file_name"]), data)
            lines.append(json.dumps(line, ensure_ascii=False))
            if done % 500 == 0 or done == len(wanted):
                print(f"{done} of {len(wanted)} pictures", file=sys.stderr)
        archive.writestr(zipfile.ZipInfo("metadata.jsonl"), "\n".join(lines) + "\n")
    temporary.replace(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
