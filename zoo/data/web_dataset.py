"""Images with captions in WebDataset shards: tar files whose consecutive members share a key.

`0001.png` and `0001.txt` (or `0001.json`) make one sample. The headers and captions of every shard are read once, by
seeking; images are then read by offset, each on request. So shards of any size are trained on in the same
addressed order as a folder, and a resumed run goes on bit for bit. Nothing is unpacked, and no name is ever a path.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from zoo.data import tar_index
from zoo.data.dataset import PictureDataset, Row, Skipped, trouble_of
from zoo.data.image_folder import MOST_VALUES
from zoo.data.tar_index import Member
from zoo.images.decode import LARGEST_FILE
from zoo.schema import strict_json
from zoo.schema.errors import UsageError

PICTURES = ("jpg", "jpeg", "png", "webp")
LARGEST_CAPTION = 2**20  # bytes of a .txt or a .json
MOST_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class WebDataset(PictureDataset):
    """Images with captions in tar shards (WebDataset), read by offset.

    Args:
        path: a .tar, a folder of them, or a pattern: `s-{000..009}.tar`, `{a,b}.tar`. `{split}` is the split's name.
        split: keep only rows whose `split` is this, or one of several (`train+test`); with `{split}` in the path, read
            that split's shards.
        size: pixels a side. resize: the shorter side is scaled to this before the crop; `size` if not given.
        crop, flip, flip_unless: how `augmented` crops and mirrors (see zoo/data/augmentation.py).
        smallest: images with a side below this are bad; without it small ones are scaled up.
        on_bad: `error` stops at a bad sample or image; `skip` decodes everything first and leaves those out, counted.

    A sample is an image (.jpg, .jpeg, .png, .webp) and its caption: .txt, or the `text` or `caption` of a .json, whose
    other keys stay with the row. Raises UsageError naming the shard for links, devices, names that leave the
    archive and damaged headers, also with `skip`.
    """

    def __init__(
        self, *, path: str, split: str | None = None, size: int = 64, resize: int | None = None,
        crop: Literal["centre", "random"] = "centre", flip: float = 0.0, flip_unless: Sequence[str] = (),
        smallest: int | None = None, on_bad: Literal["error", "skip"] = "error",
    ) -> None:  # fmt: skip
        super().__init__(
            ShardSource(path, split=split), split=split, size=size, resize=resize, crop=crop, flip=flip,
            flip_unless=flip_unless, smallest=smallest, on_bad=on_bad,
        )  # fmt: skip


def expand(pattern: str) -> Iterator[str]:
    """`{000..009}` and `{a,b}` written out, from left to right: `{0..1}-{a,b}` -> 0-a, 0-b, 1-a, 1-b."""
    parts: list[Sequence[str]] = []
    at = 0
    for match in _BRACES.finditer(pattern):
        inside = match[1]
        span = _RANGE.fullmatch(inside)
        if span is not None:
            first, last = int(span[1]), int(span[2])
            if not first <= last < first + MOST_SHARDS:
                raise UsageError(
                    f"'{pattern}' counts from {first} to {last}; count upwards, to {MOST_SHARDS} shards at most",
                    code="shard-pattern-invalid",
                )
            choices = [str(n).zfill(len(span[1])) for n in range(first, last + 1)]
        elif "," in inside:
            choices = inside.split(",")
        else:
            raise UsageError(
                f"'{pattern}' has '{{{inside}}}'; write {{000..009}} or {{a,b}}", code="shard-pattern-invalid"
            )
        parts += [[pattern[at : match.start()]], choices]
        at = match.end()
    parts.append([pattern[at:]])
    for i, chosen in enumerate(itertools.product(*parts)):
        if i >= MOST_SHARDS:
            raise UsageError(f"'{pattern}' names over {MOST_SHARDS} shards; name fewer", code="shard-pattern-invalid")
        yield "".join(chosen)


def shards_of(path: str) -> list[Path]:
    """The shards that a path or pattern names, in order; UsageError for one that isn't there."""
    if Path(path).is_dir():
        found = sorted(p for p in Path(path).iterdir() if p.suffix == ".tar" and p.is_file())
        if not found:
            raise UsageError(f"the folder '{path}' has no .tar file", code="data-empty")
        return found
    shards = [Path(name) for name in (expand(path) if "{" in path and not Path(path).exists() else [path])]
    for shard in shards:
        if not shard.is_file():
            raise UsageError(
                f"the shard '{shard}' does not exist; give a .tar, a folder or a pattern like s-{{00..09}}.tar",
                code="data-missing",
            )
    return shards


class ShardSource:
    """The samples of some shards."""

    def __init__(self, path: str, *, split: str | None = None) -> None:
        self.where = path
        # One pattern for all splits, where each has shards of its own.
        named = "{split}" in path
        if named and split is None:
            raise UsageError(f"'{path}' depends on the split; give `split`", code="split-missing")
        self.shards = shards_of(path.replace("{split}", split or ""))
        self.rows: list[Row] = []
        self.broken: list[Skipped] = []
        self._pictures: list[tuple[Path, Member]] = []
        digest = hashlib.sha256()
        seen: set[str] = set()
        for shard in self.shards:
            members, headers = tar_index.index(shard)
            digest.update(os.fsencode(f"{shard.name} {shard.stat().st_size} {headers};"))
            # Two shards of one name in different folders differ by their folders.
            label = shard.name if shard.name not in seen else shard.as_posix()
            seen.add(shard.name)
            for key, files in _samples(members):
                self._add(shard, f"{label}/{key}", files, {"split": split} if named else {})
        self._digest = digest.hexdigest()

    def _add(self, shard: Path, name: str, files: list[tuple[str, Member]], given: Row) -> None:
        """One sample as a row, or as what is wrong with it."""
        pictures = [(e, m) for e, m in files if e in PICTURES]
        repeated = len({e for e, _ in files}) < len(files)
        if repeated or len(pictures) != 1:
            if not pictures and not any(e in ("txt", "json") for e, _ in files):
                return  # no sample: a README, a class list
            wrong = "the same file twice" if repeated else f"{len(pictures)} pictures"
            self._refuse(name, "missing file" if not pictures else "duplicate", f"has {wrong}; one of each is needed")
            return
        try:
            row = {**self._said(shard, name, dict(files)), **given}
        except UsageError as error:
            self.broken.append(Skipped(name, "missing caption", str(error)))
            return
        extension, member = pictures[0]
        if member.size > LARGEST_FILE:
            self._refuse(name, "too large", f"has a picture of {member.size} bytes; at most {LARGEST_FILE} are read")
            return
        self.rows.append({**row, "file_name": f"{name}.{extension}"})
        self._pictures.append((shard, member))

    def _refuse(self, name: str, reason: str, sentence: str) -> None:
        self.broken.append(Skipped(name, reason, f"the sample '{name}' of '{self.where}' {sentence}"))

    def _said(self, shard: Path, name: str, files: dict[str, Member]) -> Row:
        """The row of a sample's .json and .txt; UsageError where there is no caption in them."""
        row: dict[str, Any] = {}
        for extension in ("json", "txt"):
            if extension not in files:
                continue
            if files[extension].size > LARGEST_CAPTION:
                raise UsageError(
                    f"the sample '{name}' has a .{extension} of over {LARGEST_CAPTION} bytes; shorten it",
                    code="caption-too-long",
                )
            data = tar_index.read(shard, files[extension])
            try:
                text = data.decode("utf-8-sig")
                if extension == "json" and data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES:
                    raise ValueError(f"it has over {MOST_VALUES} values")
                value = {"text": text.strip()} if extension == "txt" else strict_json.parse(text, finite=False)
            except ValueError as error:
                raise UsageError(
                    f"the .{extension} of the sample '{name}' can't be read: {error}", code="metadata-unreadable"
                ) from error
            if not isinstance(value, dict):
                raise UsageError(f"the .json of the sample '{name}' is no object", code="metadata-unreadable")
            row |= value
        if row.get("text") is None:
            row["text"] = row.get("caption")
        if not isinstance(row["text"], str):
            raise UsageError(
                f"the sample '{name}' of '{self.where}' lacks a caption; add a .txt or a `text` in its .json",
                code="caption-missing",
            )
        if (trouble := trouble_of(row)) is not None:
            raise UsageError(f"the sample '{name}' of '{self.where}' {trouble}; mend it", code="metadata-value-invalid")
        return row

    def read(self, index: int) -> bytes:
        """The bytes of a row's image."""
        shard, member = self._pictures[index]
        return tar_index.read(shard, member)

    def fingerprint(self) -> str:
        """A hash of every shard's name, size and headers."""
        return self._digest


def _samples(members: Sequence[Member]) -> Iterator[tuple[str, list[tuple[str, Member]]]]:
    """Members by key, which is the name up to the first dot after the last slash, as (extension, member)."""
    samples: dict[str, list[tuple[str, Member]]] = {}
    for member in members:
        folder, slash, base = member.name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if dot and stem:
            samples.setdefault(folder + slash + stem, []).append((extension.lower(), member))
    yield from samples.items()
