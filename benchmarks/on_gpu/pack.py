"""What must travel to a machine that reaches nothing: packages, images to train with, weights to go on from.

| file | what it is |
|---|---|
| `site.zip` | the parts of the packages that such a machine lacks (benchmarks/on_gpu/site.py) |
| `emoji.zip` | the data's metadata whole, and its images of train and val, encoded anew where they must be smaller |
| `start/` | weights that an earlier call brought back |
| `run.sh` | the command that is run there, from the checkout's root: `sh PACK/run.sh OUT` |

Tracked files and pack together are at most 60 MiB; the size of each part is printed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.on_gpu import site
from benchmarks.on_gpu.courses import ROOT, cards_in, files_of
from zoo.data.dataset import THREADS
from zoo.data.image_folder import METADATA, FolderSource
from zoo.images.decode import centre_square, on_white, open_picture, scaled, to_array
from zoo.schema.errors import UsageError

TOGETHER, TRACKED, LARGEST = 60 << 20, 36 << 20, 24 << 20  # bytes of all, of tracked files, of the pack
AIM = 20 << 20  # bytes of the pack that images are made small enough for
SPLITS, SIDE = ("train", "val"), 128
QUALITIES = (90, 80, 70, 60, 50)  # of WebP; the first that fits
COMPARED = 200  # images whose distance from the originals is printed
RUN = """#!/bin/sh
# From the root of the checkout: sh {name}/run.sh OUT [MINUTES] [further words]
set -e
here=$(cd "$(dirname "$0")" && pwd)
out=$1; minutes=${{2:-8}}; shift; [ $# -gt 0 ] && shift
site="${{TMPDIR:-/tmp}}/zoo-site"
python3 -m zipfile -e "$here/site.zip" "$site"
PYTHONPATH="$site:$PWD" exec python3 -m benchmarks.on_gpu --minutes "$minutes" --out "$out"{words} "$@"
"""


@dataclass(frozen=True)
class Part:
    """A file or folder of the pack, and remarks about it."""

    name: str
    bytes: int
    what: str


def pack(
    folder: Path, *, data: str | None = None, start: str | None = None, try_imports: bool = True
) -> list[Part]:  # fmt: skip
    """Collect everything in `folder`, print how large each part is; UsageError where it is too large to travel.

    Args:
        data: a folder or zip with metadata.jsonl. start: a folder of weights, as they or as archives.
        try_imports: whether the packages are tried with nothing else than what a bare machine has.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--pack: '{folder}' is there and not empty; give a new folder", code="output-taken")
    tracked = tracked_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_packages(folder, try_imports)]
    words = []
    if start is not None:
        parts.append(_start(folder, start))
        words.append('--start "$here/start"')
    if data is not None:
        room = AIM - sum(part.bytes for part in parts)
        parts.append(images(data, folder / "emoji.zip", room=room))
        words.insert(0, '--data "$here/emoji.zip"')
    else:
        parts.append(Part("emoji.zip", 0, "left out: no data was given, so nothing is judged or trained; give --data"))
    script = RUN.format(name=folder.name, words="".join(f" {word}" for word in words))
    (folder / "run.sh").write_text(script)
    parts.append(Part("run.sh", len(script), f"sh {folder.name}/run.sh OUT"))
    print(table(parts, tracked))
    whole = sum(part.bytes for part in parts)
    for size, limit, what in ((tracked, TRACKED, "tracked files are"), (whole, LARGEST, "the pack is")):
        if size > limit:
            print(f"{what} {_mib(size)} MiB where {_mib(limit)} were to be enough")
    if tracked + whole > TOGETHER:
        raise UsageError(
            f"tracked files and pack are {_mib(tracked + whole)} MiB and {_mib(TOGETHER)} can travel; give fewer "
            "weights with --start, or leave --data out",
            code="pack-too-large",
        )
    return parts


def tracked_bytes() -> int:
    """Bytes of the checkout's tracked files."""
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return sum(path.lstat().st_size for path in paths if path.is_symlink() or path.exists())


def _packages(folder: Path, try_imports: bool) -> Part:
    target = folder / "site.zip"
    built = site.build(target)
    said = ", ".join(f"{name} {number}" for name, number in built.packages.items()) or "nothing"
    said += f"; of wheels of {_mib(built.wheels)} MiB" if built.packages else ""
    wrong = [*built.missing]
    if try_imports and built.packages:
        wrong += site.imports(target)
    for sentence in wrong:
        print(sentence)
    return Part(target.name, target.stat().st_size, said)


def _start(folder: Path, start: str) -> Part:
    """Weights with their cards, unpacked where they were archives."""
    place = folder / "start"
    place.mkdir()
    cards = cards_in(start, place)
    for card in cards.values():
        for file in files_of(card):
            if file.parent != place.resolve():
                shutil.copyfile(file, place / file.name)
    size = sum(file.stat().st_size for file in place.iterdir())
    return Part("start/", size, ", ".join(sorted(cards)))


def images(data: str, target: Path, *, room: int) -> Part:
    """Write the data's training and validation images, as they are or encoded anew, into at most `room` bytes.

    The metadata stays whole, since the judge ranks all concepts; of other splits only the images are left out.
    """
    source = FolderSource(data)
    if source.broken:
        raise UsageError(source.broken[0].sentence, code="data-row-broken")
    chosen = [i for i, row in enumerate(source.rows) if row.get("split") in SPLITS]
    left_out = len(source.rows) - len(chosen)
    about = f"{len(chosen)} images of {' and '.join(SPLITS)}, {left_out} of other splits left out"
    size = _write(target, source, [source.read(i) for i in chosen], chosen)
    if size <= room:
        return Part(target.name, size, f"{about}, bytes as they were")
    for quality in QUALITIES:
        # A hundredth of them gives an estimate of the size of all.
        tried = sum(len(_encoded(source, i, quality)) for i in chosen[:: max(1, len(chosen) // 100)])
        if tried * max(1, len(chosen) // 100) > 0.98 * room and quality != QUALITIES[-1]:
            continue
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
            made = list(threads.map(lambda i, quality=quality: _encoded(source, i, quality), chosen))
        size = _write(target, source, made, chosen)
        if size <= room or quality == QUALITIES[-1]:
            found = _distances(source, made, chosen)
            said = f"WebP of quality {quality} at {SIDE} px, PSNR {np.mean(found):.1f} dB, least {np.min(found):.1f}"
            return Part(target.name, size, f"{about}, {said} (of {len(found)})")
    raise AssertionError("the last quality is always taken")


def _pixels(data: bytes, name: str) -> np.ndarray:
    """(SIDE, SIDE, 3), as datasets make it."""
    picture = scaled(centre_square(on_white(open_picture(data, name=name, where="the data"))), SIDE)
    return to_array(picture).transpose(1, 2, 0)


def _encoded(source: FolderSource, index: int, quality: int) -> bytes:
    file = io.BytesIO()
    pixels = _pixels(source.read(index), source.rows[index]["file_name"])
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", quality=quality, method=6)
    return file.getvalue()


def _distances(source: FolderSource, made: Sequence[bytes], chosen: Sequence[int]) -> list[float]:
    """PSNR of some encoded images from what they were made from, in dB."""
    found = []
    for place in range(0, len(chosen), max(1, len(chosen) // COMPARED)):
        name = source.rows[chosen[place]]["file_name"]
        first, second = (_pixels(data, name).astype(np.float64) for data in (source.read(chosen[place]), made[place]))
        error = max(float(np.square(first - second).mean()), 1e-9)
        found.append(10.0 * np.log10(255.0**2 / error))
    return found


def _write(target: Path, source: FolderSource, made: Sequence[bytes], chosen: Sequence[int]) -> int:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in source.rows)
        archive.writestr(zipfile.ZipInfo(METADATA), lines, zipfile.ZIP_DEFLATED, 9)
        for index, data in zip(chosen, made, strict=True):
            archive.writestr(zipfile.ZipInfo(source.rows[index]["file_name"]), data)
    return target.stat().st_size


def table(parts: Sequence[Part], tracked: int) -> str:
    """The table of sizes."""
    whole = sum(part.bytes for part in parts)
    rows = [(part.name, part.bytes, part.what) for part in parts]
    rows += [("pack", whole, ""), ("tracked files", tracked, ""), ("together", tracked + whole, "")]
    return "\n".join(f"{name:<14} {_mib(size):>6} MiB  {what}".rstrip() for name, size, what in rows)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"
