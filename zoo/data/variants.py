"""Several images of each row, with their captions: as it is, mirrored, in other colours.

An image and its caption change together: "red apple" in green is called "green apple", and a mirrored car "mirrored
automobile", so that nothing drawn later is mirrored unless requested (Karras et al. 2022, appendix F.2, condition the
network on its augmentations for the same reason). Every variant is a row with a place of its own, decided by (seed,
row, variant): latents can be encoded once, and a resumed run sees the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.data.augmentation import Augment, is_one_of
from zoo.data.captions import concepts_of_keywords, wordings
from zoo.data.colours import COLOURS, WORDS, Dominant, difference, dominant, name_of, recoloured
from zoo.data.dataset import Dataset, Row, Skipped, room_for
from zoo.data.reserved import ReservedNames, normalised
from zoo.diffusion.draws import stream
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import seeded, within

MIRRORED = "mirrored"
MOST = 1000  # variants of a row
DISTANT = 35.0  # in CIELAB, from which another colour is another


class Variants:
    """A dataset of `count` variants of each row of another, the first of them the row as it is.

    Args:
        data: the rows and images; it must not crop or flip at random itself.
        count: rows made of each. mirror: share of the further ones that are mirrored, of those that may be.
        mirror_unless: words, or `column=value`, whose images are never mirrored (see zoo/data/augmentation.py).
        recolour: share of the further ones that get another colour, where one hue dominates the image; never where
            recolour_unless says, as mirror_unless does.
        name_colour: share of the others whose caption names the image's colour, where it has one.
        hold_out: share of all colour names ("green apple") that are never made, the same ones in every run (see
            `held_out`): drawing them tests what a network has learnt of colours.
        dominance: from which share of the pixels that aren't white a hue dominates.
        synonyms: give each row other captions, out of its keywords (zoo/data/captions.py).
        reserved: files of hashes of names that no made caption may hold (zoo/data/reserved.py); a row's own stays.
        seed: of the choices.
    """

    augments = False

    def __init__(
        self, data: Dataset, *, count: int = 4, mirror: float = 0.5, mirror_unless: Sequence[str] = (),
        recolour: float = 0.0, recolour_unless: Sequence[str] = (), name_colour: float = 0.0,
        hold_out: float = 0.0, dominance: float = 0.45, synonyms: bool = False,
        reserved: Sequence[str] = (), seed: int = 0,
    ) -> None:  # fmt: skip
        within(1, MOST, {"variants.count": count})  # 1: the image as it is
        seeded(seed, "variants.seed")
        shares = {
            "mirror": mirror, "recolour": recolour, "name_colour": name_colour, "hold_out": hold_out,
            "dominance": dominance,
        }  # fmt: skip
        within(0.0, 1.0, {f"variants.{name}": share for name, share in shares.items()})
        if data.augments:
            raise ConfigError(
                "variants are images made once, and the data crops or flips at random; take crop and flip out",
                code="crops-at-random",
            )
        self.data, self.count, self.size, self.split = data, count, data.size, data.split
        self.skipped: Sequence[Skipped] = data.skipped
        self.reserved = ReservedNames(reserved)
        self._mirror = Augment(flip=mirror, flip_unless=tuple(mirror_unless))
        self._kept, self._hold_out = tuple(recolour_unless), hold_out
        # A made "green apple, 3d style" could be a pair of another split's.
        self._taken = {normalised(row["name"]) for row in data.rows if row.get("name")}
        self._shares = recolour, name_colour, dominance
        concepts = concepts_of_keywords(data.rows) if synonyms else None
        self.rows: list[Row] = []
        # What is done to the image of each row: mirrored or not, its dominating colour and the one it gets instead.
        self._done: list[tuple[bool, Dominant | None, str | None]] = []
        looks = count > 1 and (recolour > 0.0 or name_colour > 0.0)
        self._decoded = data.images() if looks else None  # all at once, which takes several threads
        for i, row in enumerate(data.rows):
            found = dominant(self._picture(i)) if looks and not is_one_of(row, self._kept) else None
            for k in range(count):
                made, done = self._variant(row, found, stream(seed, "variant", i * count + k) if k else None)
                if concepts is not None:
                    made["captions"] = wordings(made, concepts, allowed=self._may_be_said)
                self.rows.append(made)
                self._done.append(done)

    def _may_be_said(self, text: str) -> bool:
        """Whether a made caption holds no reserved name and isn't that of another row: "horse racing" of a horse."""
        return normalised(text.rpartition(",")[0]) not in self._taken and not self.reserved.holds(text)

    def _variant(
        self, row: Row, found: Dominant | None, draw: np.random.Generator | None
    ) -> tuple[Row, tuple[bool, Dominant | None, str | None]]:
        """A variant's row by its draw, and what is done to its image."""
        made = dict(row)
        if draw is None:
            return made, (False, None, None)
        turn, change, say, which = draw.random(4)
        recolour, name_colour, dominance = self._shares
        target: str | None = None
        if found is not None and found.share >= dominance:
            others = [name for name in COLOURS if difference(found, name) > DISTANT]
            if change < recolour:
                target = others[int(which * len(others))]
                made = self._renamed(row, target) or made
            elif say < name_colour and (own := name_of(found)) is not None and not _colours_in(row):
                made = self._renamed(row, own) or made
        if made.get("name") == row.get("name"):
            target = None  # no allowed name is true of it
        mirrored = bool(turn < self._mirror.flip) and self._mirror.may_flip(made)
        if mirrored:
            also = " ".join(filter(None, (MIRRORED, made.get("also"))))
            named = _called(made, f"{MIRRORED} {made.get('name') or ''}".strip(), also)
            mirrored = not self.reserved.holds(named["text"])
            made = named if mirrored else made
        return made, (mirrored, found if target is not None else None, target)

    def _renamed(self, row: Row, colour: str) -> Row | None:
        """The row with its colour word replaced, or one put before its name; None where no such name is allowed.

        No variant is given a name that the data has: that name has images of its own.
        """
        name = row.get("name") or ""
        if not name or not row["text"].startswith(name):
            return None
        words = name.split()
        thing = words[1:] if words[0].lower() in COLOURS else words
        if not thing or any(word.lower().strip(",") in WORDS for word in thing):
            return None
        kept = [k for k in row.get("keywords") or [] if not set(k.lower().split()) & WORDS]
        named = " ".join([colour, *thing])
        made = _called({**row, "keywords": kept}, named, colour)
        taken = normalised(named) in self._taken or held_out(named, self._hold_out)
        return None if taken or self.reserved.holds(made["text"]) else made

    def __len__(self) -> int:
        return len(self.rows)

    def _picture(self, place: int) -> np.ndarray:
        return self.data.image(place) if self._decoded is None else self._decoded[place]

    def image(self, index: int) -> np.ndarray:
        """Row `index` as uint8 (3, size, size), always the same."""
        return self._changed(self._picture(index // self.count), index)

    def _changed(self, image: np.ndarray, index: int) -> np.ndarray:
        mirrored, found, colour = self._done[index]
        if found is not None and colour is not None:
            image = recoloured(image, found, colour)
        return np.ascontiguousarray(image[:, :, ::-1]) if mirrored else image

    def augmented(self, index: int, draw: np.random.Generator) -> np.ndarray:
        """As `image`: variants aren't augmented further."""
        return self.image(index)

    def images(self, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """All images, uint8 (N, 3, size, size); each of the data's is decoded once."""
        out = room_for((len(self), 3, self.size, self.size))
        for i in range(len(self.data)):
            image = self._picture(i)
            for place in range(i * self.count, (i + 1) * self.count):
                out[place] = self._changed(image, place)
            if progress is not None:
                progress((i + 1) * self.count)
        return out

    def fingerprint(self) -> str:
        """What decides `images()`: the data's, and what is done to each row."""
        done = hashlib.sha256(json.dumps(self._done).encode()).hexdigest()[:16]
        return f"{self.data.fingerprint()} variants {self.count} {done}"


def held_out(name: str, share: float) -> bool:
    """Whether a colour name is among the share of them that no variant has, by the hash of the name alone."""
    digest = hashlib.sha256(normalised(name).encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _colours_in(row: Row) -> bool:
    return bool(set((row.get("name") or "").lower().replace(",", " ").split()) & WORDS)


def _called(row: Row, name: str, also: str) -> dict[str, Any]:
    """The row under another name, which begins with `also`."""
    old = row.get("name") or ""
    text = f"{name}{row['text'][len(old) :]}" if old and row["text"].startswith(old) else f"{also} {row['text']}"
    return {**row, "text": text, "also": also, **({"name": name} if old else {})}
