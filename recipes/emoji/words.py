"""Writes the file of words of the shipped text weights, from the committed list of their data.

    python recipes/emoji/words.py zoo/weights/emoji-words.json

Every name of the split `train` with its emoji character, group and keywords, and the styles in the words of captions.
"""

from __future__ import annotations

import csv
import lzma
import sys
from pathlib import Path

from zoo.conditioners.words import Name, Words

ROWS = Path(__file__).with_name("rows.csv.xz")


def words(styles: list[str]) -> str:
    """The file's text; a name a line."""
    names: dict[str, list] = {}
    with lzma.open(ROWS, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] != "train":
                continue
            entry = names.setdefault(row["name"], [row["name"], row["emoji"], row["group"], []])
            entry[3] += [word for word in row["keywords"].split("|") if word and word not in entry[3]]
    rows = [names[name] for name in sorted(names)]
    found = tuple(Name(name, emoji, group, tuple(keywords)) for name, emoji, group, keywords in rows)
    return Words(found, tuple(styles)).text()


def main() -> None:
    """See the module."""
    sys.path.insert(0, str(Path(__file__).parent))
    from prepare import STYLES

    styles = [phrase.removesuffix(" style") for _, _, phrase, *_ in STYLES.values()]
    Path(sys.argv[1]).write_text(words(styles), encoding="utf-8")


if __name__ == "__main__":
    main()
