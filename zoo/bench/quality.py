"""Quality of a row: a Fréchet distance and the hit score of the same configuration, under keys that say what decides
them; or the reason why there is none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.acceleration.device import out_of_memory
from zoo.bench.pipelines import Built
from zoo.bench.rows import Quality
from zoo.data.image_folder import ImageFolder
from zoo.data.image_sets import ArrayPictures
from zoo.diffusion.draws import stream
from zoo.diffusion.noise import AddressedNoise, Renumbered
from zoo.diffusion.types import source_of
from zoo.evaluation.extractors.clip import Clip
from zoo.evaluation.extractors.extractor import Named
from zoo.evaluation.extractors.features import Features, extract
from zoo.evaluation.measurement import measure
from zoo.evaluation.metrics.hit_score import HitScore, Judge
from zoo.evaluation.metrics.keys import metric_key
from zoo.evaluation.selection import build, metric_of
from zoo.schema.errors import UsageError
from zoo.schema.registry import registry

SHEET = 8  # images of a sample sheet
FORMAT = "uint8 RGB, in memory"
THREADS = 16  # at most, that decode images
SETTLING = 3.0  # seconds that the metrics themselves take, of features
Words = Callable[
    [int, int], dict[str, Any]
]  # (how many samples, the first's number) -> what the pipeline is called with


class Judges:
    """The data and the extractor that rows are judged by."""

    def __init__(self, asked: Quality, *, data: str, split: str) -> None:
        self.asked, self.path, self.split = asked, data, split
        self.every = ImageFolder(path=data, size=64)
        there = sorted({str(row.get("split")) for row in self.every.rows})
        for wanted in (split, asked.reference, asked.hit_split):
            if wanted is not None and wanted not in there:
                raise UsageError(
                    f"'{data}' has no split '{wanted}'; give one of {', '.join(there)}", code="split-unknown"
                )
        self.extractor = build(asked.extractor, registry(), torch.device("cpu"))
        self._references: dict[int, Features] = {}
        self._each = 0.0  # seconds of one image's features, of the latest set of them
        self._judge: Judge | None = None

    def reference(self, size: int) -> Features:
        """The features of the data's images, made as large as a pipeline's."""
        if size not in self._references:
            images = _decoded(ImageFolder(path=self.path, split=self.asked.reference or self.split, size=size))
            self._references[size] = self._seen(images, self.path)
        return self._references[size]

    def _seen(self, images: Tensor, name: str) -> Features:
        began = perf_counter()
        features = extract(ArrayPictures(images, name=name), self.extractor)
        self._each = (perf_counter() - began) / len(images)
        return features

    def chosen(self, split: str | None = None, count: int | None = None) -> list[Mapping[str, Any]]:
        """The rows of the data whose captions are drawn, the same for every configuration, in a fixed shuffle."""
        rows = [row for row in self.every.rows if row.get("split") == (split or self.split)]
        order = stream(0, "captions").permutation(len(rows))[: count or self.asked.samples]
        return [rows[int(i)] for i in order]

    def __call__(self, built: Built, *, until: float | None = None) -> dict[str, Any]:
        """`values` by key and how their samples were drawn, or a reason.

        Args:
            until: of time.perf_counter, when the values are to be known: as many samples are drawn as leave time for
                their features and the metrics, but at least `quality.least`.
        """
        if built.pipe.stages[0].enlarges:
            return {"values": {}, "reason": "it enlarges a picture; `zoo doctor cascade` measures that"}
        _move(self.extractor, built.pipe.device)
        chosen = self.chosen()
        words, labels = _words(built, chosen)
        # The hit score has captions of its own, which are drawn first: there are few of them. What takes the same time
        # for any number of samples comes before them.
        found = self._own_hits(built) if self.asked.hit_split is not None else {}
        size = int(built.last.tensor.shape[-1])
        self.reference(size)
        until = None if until is None else until - SETTLING
        drawn, batch = _drawn(
            built, words, self.asked.samples, least=self.asked.least, until=until, each=self._each
        )  # fmt: skip
        features = self._seen(drawn, "drawn")
        found = self._distances(features, size, chosen) | found
        if self.asked.hit_split is None and self._can_hit(built, chosen):
            found |= self._hits(features, chosen[: features.count], size, self.split)
        return {
            "values": found, "reason": None, "seed": built.settings.seed, "labels": labels, "batch": batch
        }  # fmt: skip

    def _can_hit(self, built: Built, chosen: Sequence[Mapping[str, Any]]) -> bool:
        concepts = {row.get("concept") for row in self.every.rows} - {None}
        prompts = any(source_of(c) == "prompts" for c in built.pipe.conditioners.values())
        return prompts and self.asked.hit and isinstance(self._clip(), Clip) and len(concepts) >= 5 and bool(chosen)

    def _own_hits(self, built: Built) -> dict[str, Any]:
        """The hit score of captions of another split than the samples'."""
        chosen = self.chosen(self.asked.hit_split, self.asked.hit_samples)
        if not self._can_hit(built, chosen):
            return {}
        words, _ = _words(built, chosen)
        drawn, _ = _drawn(built, words, len(chosen))
        features = self._seen(drawn, "drawn")
        return self._hits(features, chosen, int(drawn.shape[-1]), str(self.asked.hit_split))

    def _distances(self, features: Features, size: int, chosen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        reference = self.reference(size)
        each = features.count // self.asked.ranges
        metrics = [m if isinstance(m, str) else metric_of(m) for m in self.asked.metrics]
        measured = measure(metrics, features, reference, ranges=self.asked.ranges)
        every = [m for m in measured if "-floor" in m.key]
        values, captions = {}, [row["text"] for row in chosen]
        for one in measured:
            if one in every:
                continue
            floors = [m for m in every if one.key.startswith(m.key.partition("-floor")[0])]
            values[one.key] = {
                "value": one.value, "values": list(one.values), "deviation": one.deviation, "n": each,
                "seed_ranges": [[i * each, (i + 1) * each] for i in range(self.asked.ranges)],
                "floor": {"key": floors[0].key, "value": floors[0].value} if floors else None, "better": "lower",
                "extractor": self._extracted(), "pictures": {"format": FORMAT, "size": size},
                "reference": _reference(
                    self.path, self.asked.reference or self.split, reference.count, captions, reference.pictures_sha256
                ),
            }  # fmt: skip
        return values

    def _hits(self, features: Features, chosen: Sequence[Mapping[str, Any]], size: int, split: str) -> dict[str, Any]:
        clip = self._clip()
        if self._judge is None:
            self._judge = Judge(clip, self.every.rows)
        score = self._judge.score(torch.from_numpy(features.array()), chosen)
        return hit_values(
            score, self._judge, extractor=self._extracted(), data=self.path, split=split, size=size,
            captions=[row["text"] for row in chosen],
        )  # fmt: skip

    def _clip(self) -> Any:
        return self.extractor.extractor if isinstance(self.extractor, Named) else self.extractor

    def _extracted(self) -> dict[str, Any]:
        return {"name": self.extractor.name, "sha256": self.extractor.sha256, "resize": _resized(self._clip())}


def _reference(data: str, split: str, count: int, captions: Sequence[str], pictures: str | None) -> dict[str, Any]:
    return {
        "name": Path(data).name, "split": split, "n": count, "pictures_sha256": pictures,
        "captions_sha256": hashlib.sha256(json.dumps(captions).encode()).hexdigest(),
    }  # fmt: skip


def hit_values(
    score: HitScore, judge: Judge, *, extractor: Mapping[str, Any], data: str, split: str, size: int,
    captions: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The hit score of images of a size, drawn for these captions of a split, as a record has it."""
    key = metric_key("hit", extractor["name"], extractor["sha256"], score.count, split)
    return {key: {
        "value": score.hit, "values": [score.hit], "deviation": None, "n": score.count,
        "seed_ranges": [[0, score.count]], "interval": list(score.interval),
        "floor": {"key": "chance", "value": judge.chance}, "better": "higher", "extractor": dict(extractor),
        "reference": _reference(data, split, len(captions), captions, None),
        "pictures": {"format": FORMAT, "size": size},
    }}  # fmt: skip


def _words(built: Built, chosen: Sequence[Mapping[str, Any]]) -> tuple[Words, str]:
    """What a pipeline is called with to draw those rows round and round, and in words how that was chosen."""
    prompts = [row["text"] for row in chosen]
    first = built.words(1, prompts=prompts)

    def words(count: int, start: int) -> dict[str, Any]:
        return built.words(count, start=start, prompts=prompts)

    if "labels" not in first:
        return words, "captions of the split" if "prompts" in first else "none"
    # Classes as often as the data has them: drawn evenly, the distance would measure that.
    conditioner = next(c for c in built.pipe.conditioners.values() if source_of(c) == "labels")
    names = set(getattr(conditioner, "names", ()))
    column = next((k for k in chosen[0] if all(isinstance(r.get(k), str) and r[k] in names for r in chosen)), None)
    if column is None:
        return words, "classes in turn"
    labels = [row[column] for row in chosen]
    return (
        lambda count, start: {
            **words(count, start), "labels": [labels[(start + i) % len(labels)] for i in range(count)]
        },
        f"'{column}' of the split's rows",
    )  # fmt: skip


def _drawn(
    built: Built, words: Words, count: int, *, least: int | None = None, until: float | None = None, each: float = 0.0
) -> tuple[Tensor, int]:
    """uint8 (N, 3, H, W) in batches that fit, and that batch; every sample has its own noise whatever the batch.

    All of `count` are drawn, or at least `least` and no more than leave `each` second for every one until `until`.
    """
    batch, made = min(built.tried[-1], count), list[Tensor]()
    done, source = 0, AddressedNoise(built.settings.seed)
    while done < count:
        enough = count if least is None else min(least, count)
        if until is not None and done >= enough and perf_counter() + each * done >= until:
            break
        some = min(batch, count - done)
        numbered = Renumbered(source=source, numbers=tuple(range(done, done + some)))
        try:
            drawn = built.pipe(**words(some, done), noise=numbered).tensor
        except Exception as error:
            if not out_of_memory(error) or batch == 1:
                raise
        else:
            made.append(drawn.mul(255).round().to(torch.uint8))
            done += some
            continue
        batch //= 2
        built.pipe.to()  # a fast pipeline forgets what it recorded for the larger batch
        if built.row.asked.device.startswith("cuda"):
            torch.cuda.empty_cache()
    return torch.cat(made), batch


def _decoded(dataset: ImageFolder) -> Tensor:
    """Every image of a dataset, uint8 (N, 3, H, W), decoded by several threads: their decoders don't hold the lock."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        return torch.from_numpy(np.stack(list(pool.map(dataset.image, range(len(dataset))))))


def _move(extractor: Any, device: torch.device) -> None:
    """An extractor with a network to where the images are drawn."""
    network = extractor.extractor if isinstance(extractor, Named) else extractor
    if isinstance(network, torch.nn.Module):
        network.to(device)


def _resized(extractor: Any) -> str | None:
    """How an extractor resizes images, as far as it declares that."""
    if isinstance(extractor, Clip):
        return f"bicubic, antialiased, to {extractor.image_size} px"
    how = getattr(extractor, "resize", None)
    return how if isinstance(how, str) else None


def sheet(built: Built, folder: Path, name: str) -> dict[str, Any]:
    """A sheet of the row's first images, beside the record, and the seed that they were drawn with."""
    from PIL import Image

    from zoo.pipeline.generation import sheet as side_by_side

    file = folder / f"{name}-{built.row.id}.png"
    # Sheets are kept beside every record: with 256 colours a third of the bytes.
    side_by_side(built.last.images[:SHEET]).quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    return {"samples": [file.name], "samples_seed": built.last.record["seed"]}
