"""Quality of a row: a Fréchet distance and the hit score of the same configuration, under keys that say what decides
them; or the reason why there is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import zoo
from zoo.benchmark.measure import out_of_memory
from zoo.benchmark.pipelines import Built
from zoo.benchmark.suite import Quality, known_extractors
from zoo.config.cards import card_names, read_card
from zoo.config.unknown import unknown
from zoo.data.draws import stream
from zoo.data.image_folder import ImageFolder
from zoo.errors import UsageError
from zoo.evaluation.clip import Clip
from zoo.evaluation.extractor import Named
from zoo.evaluation.features import Features, extract
from zoo.evaluation.hit_score import Judge
from zoo.evaluation.keys import metric_key
from zoo.evaluation.measurement import measure
from zoo.evaluation.pictures import ArrayPictures, DatasetPictures
from zoo.generation import Generation
from zoo.registry import registry
from zoo.request import hears

SHEET = 8  # pictures of a sample sheet


class Judges:
    """The data and the extractor that rows are judged by."""

    def __init__(self, asked: Quality, *, data: str, split: str) -> None:
        self.asked, self.path, self.split = asked, data, split
        self.every = ImageFolder(path=data, size=64)
        if not any(row.get("split") == split for row in self.every.rows):
            there = sorted({str(row.get("split")) for row in self.every.rows})
            raise UsageError(f"'{data}' has no split '{split}'; give one of {', '.join(there)}")
        self.extractor = _extractor(asked.extractor)
        self._references: dict[int, Features] = {}
        self._judge: Judge | None = None

    def reference(self, size: int) -> Features:
        """The data's features, its pictures at a pipeline's size."""
        if size not in self._references:
            pictures = DatasetPictures(ImageFolder(path=self.path, split=self.split, size=size), name=self.path)
            self._references[size] = extract(pictures, self.extractor)
        return self._references[size]

    def chosen(self) -> list[Mapping[str, Any]]:
        """The rows of the data whose captions are drawn, the same for every configuration."""
        rows = [row for row in self.every.rows if row.get("split") == self.split]
        order = stream(0, "captions").permutation(len(rows))[: self.asked.samples]
        return [rows[int(i)] for i in order]

    def __call__(self, built: Built) -> dict[str, Any]:
        """`values` by key and how they were drawn, or a reason."""
        if built.pipe.stages[0].enlarges:
            return {"values": {}, "reason": "it enlarges a picture; `zoo doctor cascade` measures that"}
        chosen = self.chosen()
        words, labels = _asked_for(built, chosen)
        made, batch = _drawn(built, words)
        drawn = made.tensor.mul(255).round().to(torch.uint8)
        size = int(drawn.shape[-1])
        features = extract(ArrayPictures(drawn, name="drawn"), self.extractor)
        found = self._distances(features, size, chosen)
        concepts = {row.get("concept") for row in self.every.rows} - {None}
        if "prompts" in words and self.asked.hit and isinstance(self._clip(), Clip) and len(concepts) >= 5:
            found |= self._hits(features, chosen, size)
        return {
            "values": found, "reason": None, "seed": built.settings.seed, "labels": labels, "batch": batch
        }  # fmt: skip

    def _distances(self, features: Features, size: int, chosen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        reference = self.reference(size)
        each = features.count // self.asked.ranges
        measured = measure(["fd"], features, reference, ranges=self.asked.ranges)
        values, floors = {}, [m for m in measured if "-floor" in m.key]
        for one in measured:
            if one in floors:
                continue
            values[one.key] = {
                "value": one.value, "values": list(one.values), "deviation": one.deviation, "n": each,
                "seed_ranges": [[i * each, (i + 1) * each] for i in range(self.asked.ranges)],
                "floor": {"key": floors[0].key, "value": floors[0].value} if floors else None, "better": "lower",
                **self._told(size, reference.pictures_sha256, reference.count, chosen),
            }  # fmt: skip
        return values

    def _hits(self, features: Features, chosen: Sequence[Mapping[str, Any]], size: int) -> dict[str, Any]:
        clip = self._clip()
        if self._judge is None:
            self._judge = Judge(clip, self.every.rows)
        score = self._judge.score(torch.from_numpy(features.array()), chosen)
        key = metric_key("hit", self.extractor.name, self.extractor.sha256, features.count, self.split)
        return {key: {
            "value": score.hit, "values": [score.hit], "deviation": None, "n": features.count,
            "seed_ranges": [[0, features.count]], "interval": list(score.interval),
            "floor": {"key": "chance", "value": self._judge.chance}, "better": "higher",
            **self._told(size, None, len(chosen), chosen),
        }}  # fmt: skip

    def _clip(self) -> Any:
        return self.extractor.extractor if isinstance(self.extractor, Named) else self.extractor

    def _told(self, size: int, pictures: str | None, count: int, chosen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        captions = json.dumps([row["text"] for row in chosen]).encode()
        return {
            "extractor": {
                "name": self.extractor.name, "sha256": self.extractor.sha256, "resize": _resized(self._clip())
            },
            "reference": {
                "name": Path(self.path).name, "split": self.split, "n": count, "pictures_sha256": pictures,
                "captions_sha256": hashlib.sha256(captions).hexdigest(),
            },
            "pictures": {"format": "uint8 RGB, in memory", "size": size},
        }  # fmt: skip


def _asked_for(built: Built, chosen: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """What a pipeline is called with to draw those rows, and in words how that was chosen."""
    words = built.words(len(chosen), prompts=[row["text"] for row in chosen])
    if "labels" not in words:
        return words, "captions of the split" if "prompts" in words else "none"
    # Classes as often as the data has them: drawn evenly, the distance would measure that.
    conditioner = next(c for c in built.pipe.conditioners.values() if hears(c) == "labels")
    names = set(getattr(conditioner, "names", ()))
    column = next((k for k in chosen[0] if all(isinstance(r.get(k), str) and r[k] in names for r in chosen)), None)
    if column is None:
        return words, "classes in turn"
    return {**words, "labels": [row[column] for row in chosen]}, f"'{column}' of the split's rows"


def _drawn(built: Built, words: Mapping[str, Any]) -> tuple[Generation, int]:
    """Pictures in batches that fit, and that batch; every sample has its own noise whatever the batch."""
    batch = built.tried[-1]
    while True:
        try:
            return built.pipe(**words, seed=built.settings.seed, batch_size=batch), batch
        except Exception as error:
            if not out_of_memory(error) or batch == 1:
                raise
        batch //= 2
        built.pipe.to()  # a fast pipeline forgets what it recorded for the larger batch
        if built.row.asked.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _resized(extractor: Any) -> str | None:
    """How an extractor brings pictures to its size, as far as it tells."""
    if isinstance(extractor, Clip):
        return f"bicubic, antialiased, to {extractor.image_size} px"
    how = getattr(extractor, "resize", None)
    return how if isinstance(how, str) else None


def _extractor(name: str) -> Any:
    """Weights of kind extractor with their hash, or a registered extractor."""
    if name in card_names():
        card = read_card(name)
        if card.kind != "extractor":
            raise UsageError(f"the weights '{name}' are of kind '{card.kind}' where an extractor is needed")
        return Named(extractor=zoo.load(name), name=name, sha256=card.sha256)
    if name not in registry().names("extractor"):
        raise UsageError(unknown("extractor", name, known_extractors()))
    return registry().load("extractor", name)()


def sheet(built: Built, folder: Path, name: str) -> dict[str, Any]:
    """A sheet of the row's first pictures, beside the record, and the seed that they were drawn with."""
    from PIL import Image

    from zoo.generation import sheet as side_by_side

    file = folder / f"{name}-{built.row.id}.png"
    # To be looked at, and kept beside every record: 256 colours are a third of the file.
    side_by_side(built.last.images[:SHEET]).quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    return {"samples": [file.name], "samples_seed": built.last.record["seed"]}
