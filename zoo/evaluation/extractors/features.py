"""Images to features, in shards: the unit of distribution, of resuming and of merging.

A shard is 1,000 consecutive sample ids. Inside it the extractor runs on batches that always start at
the same ids, so features don't depend on how many processes work. Its features are kept as float32 in one file,
written atomically; a run that was killed makes what is missing and counts nothing twice (of a shard that takes long,
what is done is written in between, and less than a minute's work is lost):

    fill(images, extractor, folder="f", rank=rank, world=world)     # each process its shards
    features = extract(images, extractor, folder="f")               # reads them all, in order

Moments are merged in shard order. Above `keep` samples the features themselves are dropped and moments are left, which
a Fréchet distance needs; metrics that need the features refuse.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.image_sets import Pictures
from zoo.evaluation.extractors.extractor import MAIN, Comparing, Extractor, look
from zoo.evaluation.extractors.moments import Moments
from zoo.schema import strict_json
from zoo.schema.errors import UsageError
from zoo.schema.files import write_atomically

SCHEMA = "zoo.features/2"
SHARD = 1000  # sample ids
BATCH = 50  # images an extractor sees at once
KEEP = 100_000  # samples above which moments alone are kept
PART = 30.0  # seconds after which an unfinished shard is written in between
Progress = Callable[[int, int], object]  # images done, of how many


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """What an extractor made of a set of images."""

    source: str
    extractor: str
    sha256: str  # of the extractor's weights
    count: int
    arrays: Mapping[str, np.ndarray]  # by layer (N, D) float32; empty where only moments were kept
    moments: Mapping[str, Moments]  # by layer
    pictures_sha256: str  # of all pixels, in order
    notes: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)  # "HEIGHTxWIDTH" -> how many images
    texts: np.ndarray | None = None  # (N, D) embeddings of the captions, where the extractor has a text tower
    asked: Sequence[Mapping[str, Any]] | None = None  # the row of each image, for a hit score
    judge: Any = None  # zoo.evaluation.metrics.hit_score.Judge of it

    def array(self, layer: str = MAIN) -> np.ndarray:
        """A layer's features (N, D)."""
        self._check(layer)
        if layer not in self.arrays:
            raise UsageError(
                f"of '{self.source}' there are moments only (a statistics file holds no more, and of many pictures no "
                "more is kept); a metric of the features themselves needs the pictures, or a larger `keep`",
                code="moments-only",
            )
        return self.arrays[layer]

    def moment(self, layer: str = MAIN) -> Moments:
        """A layer's moments."""
        self._check(layer)
        return self.moments[layer]

    def gaussian(self, layer: str = MAIN) -> np.ndarray | Moments:
        """What a Fréchet distance is best computed from: the features where they are few, else their moments."""
        few = layer in self.arrays and self.count <= self.arrays[layer].shape[1]
        return self.arrays[layer] if few else self.moment(layer)

    def _check(self, layer: str) -> None:
        if layer not in self.moments:
            raise UsageError(
                f"of '{self.source}' the layer '{layer}' wasn't extracted; name it in `layers`", code="layer-unknown"
            )


def shards(count: int) -> list[range]:
    """The sample ids of each shard."""
    return [range(i, min(i + SHARD, count)) for i in range(0, count, SHARD)]


def fill(
    pictures: Pictures, extractor: Extractor, *, folder: str | Path, layers: Sequence[str] = (MAIN,),
    batch: int = BATCH, rank: int = 0, world: int = 1, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Make the shard files that are missing, those of one process of `world`."""
    mark = pictures.fingerprint()
    mine = shards(len(pictures))[rank::world]
    count = _Count(progress, sum(len(ids) for ids in mine))
    for ids in mine:
        _shard(pictures, extractor, ids, layers, batch, Path(folder), mark, count)


def extract(
    pictures: Pictures, extractor: Extractor, *, layers: Sequence[str] = (MAIN,), folder: str | Path | None = None,
    batch: int = BATCH, keep: int = KEEP, progress: Progress | None = None,
) -> Features:  # fmt: skip
    """The features of all images.

    Args:
        layers: which of the extractor's (see the metrics' `layer`). folder: where shards are kept and found again.
        batch: images of one call; features depend on it. keep: samples above which moments alone are kept.
        progress: called with how many images are done, and of how many.
    """
    if not len(pictures):
        raise UsageError(f"'{pictures.name}' has no pictures; give one or more", code="data-empty")
    parts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    moments: dict[str, Moments] = {}
    digest, sizes = hashlib.sha256(), Counter[str]()
    notes = Counter[str](getattr(pictures, "left_out", {}))
    count = _Count(progress, len(pictures))
    kept_in = None if folder is None else Path(folder)
    mark = "" if folder is None else pictures.fingerprint()
    for ids in shards(len(pictures)):
        arrays, header = _shard(pictures, extractor, ids, layers, batch, kept_in, mark, count)
        digest.update(bytes.fromhex(header["pixels"]))
        notes.update(header["notes"])
        sizes.update(header.get("sizes", {}))
        for layer in layers:
            found = Moments.of(arrays[layer])
            moments[layer] = moments[layer].merge(found) if layer in moments else found
            if len(pictures) <= keep:
                parts[layer].append(arrays[layer])
    return Features(
        source=pictures.name, extractor=extractor.name, sha256=extractor.sha256, count=len(pictures),
        arrays={layer: np.concatenate(found) for layer, found in parts.items() if found}, moments=moments,
        pictures_sha256=digest.hexdigest(), notes=dict(notes), sizes=dict(sizes),
    )  # fmt: skip


class _Count:
    """Counts finished images for `progress`."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def add(self, count: int) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total)


def _shard(
    pictures: Pictures, extractor: Extractor, ids: range, layers: Sequence[str], batch: int, folder: Path | None,
    mark: str, count: _Count,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # fmt: skip
    """One shard's features by layer and its header, from its file where there is one."""
    header = {
        "schema": SCHEMA, "extractor": extractor.name, "sha256": extractor.sha256, "layers": sorted(layers),
        "pictures": mark, "start": ids.start, "stop": ids.stop, "batch": batch,
    }  # fmt: skip
    path = None if folder is None else folder / f"{ids.start:09d}-{ids.stop:09d}.npz"
    if path is not None:
        kept = _read(path, header)
        if kept is not None:
            count.add(len(ids))
            return kept
    unfinished = None if path is None else path.with_suffix(".part")
    arrays, told = (None if unfinished is None else _read(unfinished, header)) or ({}, {})
    rows: dict[str, list[Tensor]] = {layer: [torch.from_numpy(arrays[layer])] if told else [] for layer in layers}
    digests: list[str] = list(told.get("digests", ()))  # of each image's pixels
    sizes, notes = Counter[str](told.get("sizes", {})), Counter[str](told.get("notes", {}))
    count.add(len(digests))
    saved = monotonic()
    for start in range(ids.start + len(digests), ids.stop, batch):
        samples = range(start, min(start + batch, ids.stop))
        before = Counter(pictures.notes)
        shown = pictures(samples)
        notes.update(Counter(pictures.notes) - before)
        for picture in shown:
            sizes[f"{picture.shape[1]}x{picture.shape[2]}"] += 1
            pixels = f"{tuple(picture.shape)}".encode() + picture.contiguous().numpy().tobytes()
            digests.append(hashlib.sha256(pixels).hexdigest())
        seen = _look(extractor, shown, layers, batch)
        if isinstance(extractor, Comparing):
            seen |= extractor.compare(shown, samples, layers)
        for layer, found in seen.items():
            rows[layer].append(found)
        count.add(len(shown))
        if unfinished is not None and samples.stop < ids.stop and monotonic() - saved >= PART:
            _write(unfinished, _joined(rows), {**header, "digests": digests, "sizes": sizes, "notes": notes})
            saved = monotonic()
    arrays = _joined(rows)
    all_pixels = hashlib.sha256("".join(digests).encode()).hexdigest()
    header |= {"pixels": all_pixels, "notes": dict(notes), "sizes": dict(sizes)}
    if path is not None and unfinished is not None:
        _write(path, arrays, header)
        unfinished.unlink(missing_ok=True)
    return arrays, header


def _joined(rows: Mapping[str, Sequence[Tensor]]) -> dict[str, np.ndarray]:
    return {layer: torch.cat(list(found)).numpy() for layer, found in rows.items()}


def _look(extractor: Extractor, shown: Sequence[Tensor], layers: Sequence[str], batch: int) -> dict[str, Tensor]:
    """The layers of one batch that are of single images; those of one size run together, and the order is restored."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(shown):
        sizes.setdefault(tuple(picture.shape), []).append(i)
    order = [i for places in sizes.values() for i in places]
    seen = [look(extractor, torch.stack([shown[i] for i in places]), layers, batch=batch) for places in sizes.values()]
    back = torch.tensor(order).argsort()
    return {layer: torch.cat([s[layer] for s in seen])[back] for layer in seen[0]}


def _write(path: Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    told = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(buffer, header=told, **{f"layer_{layer}": array for layer, array in arrays.items()})  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def _read(path: Path, wanted: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """A shard file's content; None where there is none or it is damaged (by a zip's checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = strict_json.parse(file["header"].tobytes())
            if not isinstance(header, dict):
                return None
            arrays = {name.removeprefix("layer_"): file[name] for name in file.files if name != "header"}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None
    other = sorted(key for key, value in wanted.items() if header.get(key) != value)
    if other:
        raise UsageError(
            f"'{path}' holds features of other pictures or another extractor ({other[0]}: {header.get(other[0])}); "
            "give another folder, or remove that one",
            code="features-folder-taken",
        )
    if sorted(arrays) != header.get("layers"):  # a zip's checksums leave its members' names out
        return None
    return arrays, header
