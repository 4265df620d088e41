"""The hundred colour requests, "blue teapot, 3d style": a colour and a thing that no caption of the data puts together.

`colour_requests.csv` is the list that is used, one request a line. It was made by

    python -m benchmarks.colour_requests --data emoji-core-128.zip --reserved reserved-names.sha256

by this rule: ten things for each of ten colours, of the `THINGS` that some training caption names, shuffled by an
addressed stream; the styles are those in which the thing is in training, line drawings apart, each about as often. No
name of any split may be the colour and the thing, and no run of up to six words of the request may be reserved (its
hash in the list that is given).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.data.captions import style_of
from zoo.data.image_folder import FolderSource
from zoo.diffusion.draws import stream

REQUESTS = Path(__file__).with_name("colour_requests.csv")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
EACH = 10
THINGS = (
    "balloon", "umbrella", "house", "cat", "dog", "fish", "butterfly", "tulip", "mushroom", "automobile", "bus",
    "bicycle", "bell", "t-shirt", "star", "bird", "chair", "guitar", "handbag", "scarf", "gloves", "door", "teapot",
    "kite", "rocket", "drum", "envelope", "camera", "candle", "crown", "key", "backpack",
)  # fmt: skip
COLOURLESS = "black and white line style"
LONGEST = 6  # words of a reserved name


def requests(path: Path = REQUESTS) -> list[dict[str, str]]:
    """The committed list: `caption`, `colour`, `thing` and `style` of each."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def normalised(text: str) -> str:
    """Lower case, every run of other characters than a-z and 0-9 one blank."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def is_reserved(text: str, hashes: frozenset[str]) -> bool:
    """Whether some run of one to six of its words has its hash in the list."""
    words = normalised(text).split()
    runs = (words[i : i + length] for length in range(1, LONGEST + 1) for i in range(max(0, len(words) - length + 1)))
    return any(hashlib.sha256(" ".join(run).encode()).hexdigest() in hashes for run in runs)


def make(rows: Sequence[Mapping[str, Any]], hashes: frozenset[str]) -> list[dict[str, str]]:
    """The list by the rule above, from all rows of the data."""
    names = {normalised(row["name"]) for row in rows}
    styles: dict[str, set[str]] = {}
    for row in rows:
        if row["split"] == "train" and row["name"] in THINGS and style_of(row) != COLOURLESS:
            styles.setdefault(row["name"], set()).add(style_of(row))
    used: dict[str, int] = {}
    made = []
    for number, colour in enumerate(COLOURS):
        free = [
            t for t in THINGS
            if t in styles and normalised(f"{colour} {t}") not in names and not is_reserved(f"{colour} {t}", hashes)
        ]  # fmt: skip
        for place in stream(0, "colour-requests", number).permutation(len(free))[:EACH]:
            thing = free[int(place)]
            style = min(sorted(styles[thing]), key=lambda s: used.get(s, 0))
            used[style] = used.get(style, 0) + 1
            made.append({"caption": f"{colour} {thing}, {style}", "colour": colour, "thing": thing, "style": style})
    return made


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description="The list of colour requests.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--reserved", required=True, type=Path, help="SHA-256 of names not to be used, one a line")
    options = parser.parse_args()
    lines = options.reserved.read_text(encoding="utf-8").split("\n")
    hashes = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    made = make(FolderSource(options.data).rows, hashes)
    with REQUESTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(made[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    print(f"{len(made)} requests in {REQUESTS}")


if __name__ == "__main__":
    main()
