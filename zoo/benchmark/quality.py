"""Quality of a row: a Fréchet distance and the hit score of the same configuration, under keys that say what decides
them; or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
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
from zoo.registry import registry

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

    def __call__(self, built: Built) -> dict[str, Any]:
        """`values` by key, or a reason."""
        if built.pipe.stages[0].enlarges:
            return {"values": {}, "reason": "it enlarges a picture; `zoo doctor cascade` measures that"}
        rows = [row for row in self.every.rows if row.get("split") == self.split]
        order = stream(0, "captions").permutation(len(rows))[: self.asked.samples]
        chosen = [rows[int(i)] for i in order]
        # Of a batch that fits; every sample has its own noise whatever the batch.
        words = built.words(len(chosen), prompts=[row["text"] for row in chosen])
        made = built.pipe(**words, seed=built.settings.seed, batch_size=built.tried[-1])
        drawn = made.tensor.mul(255).round().to(torch.uint8)
        size = int(drawn.shape[-1])
        found = self._distances(drawn, size)
        concepts = {row.get("concept") for row in self.every.rows} - {None}
        if "prompts" in words and self.asked.hit and isinstance(self._clip(), Clip) and len(concepts) >= 5:
            found |= self._hits(drawn, chosen, size)
        return {"values": found, "reason": None}

    def _distances(self, drawn: Tensor, size: int) -> dict[str, Any]:
        reference = self.reference(size)
        features = extract(ArrayPictures(drawn, name="drawn"), self.extractor)
        each = len(drawn) // self.asked.ranges
        measured = measure(["fd"], features, reference, ranges=self.asked.ranges)
        values, floors = {}, [m for m in measured if "-floor" in m.key]
        for one in measured:
            if one in floors:
                continue
            values[one.key] = {
                "value": one.value, "values": list(one.values), "deviation": one.deviation, "n": each,
                "seed_ranges": [[i * each, (i + 1) * each] for i in range(self.asked.ranges)],
                "floor": {"key": floors[0].key, "value": floors[0].value} if floors else None, "better": "lower",
                **self._told(size, reference.pictures_sha256, reference.count),
            }  # fmt: skip
        return values

    def _hits(self, drawn: Tensor, chosen: Sequence[Mapping[str, Any]], size: int) -> dict[str, Any]:
        clip = self._clip()
        if self._judge is None:
            self._judge = Judge(clip, self.every.rows)
        score = self._judge.score(clip.images(drawn), chosen)
        key = metric_key("hit", self.extractor.name, self.extractor.sha256, len(drawn), self.split)
        return {key: {
            "value": score.hit, "values": [score.hit], "deviation": None, "n": len(drawn),
            "seed_ranges": [[0, len(drawn)]], "interval": list(score.interval),
            "floor": {"key": "chance", "value": self._judge.chance}, "better": "higher",
            **self._told(size, None, len(chosen)),
        }}  # fmt: skip

    def _clip(self) -> Any:
        return self.extractor.extractor if isinstance(self.extractor, Named) else self.extractor

    def _told(self, size: int, pictures: str | None, count: int) -> dict[str, Any]:
        return {
            "extractor": {"name": self.extractor.name, "sha256": self.extractor.sha256},
            "reference": {
                "name": Path(self.path).name, "split": self.split, "n": count, "pictures_sha256": pictures
            },
            "pictures": {"format": "uint8 RGB, in memory", "size": size},
        }  # fmt: skip


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


def sheet(built: Built, folder: Path, name: str) -> list[str]:
    """A sheet of the row's first pictures, beside the record."""
    from zoo.generation import sheet as side_by_side

    file = folder / f"{name}-{built.row.id}.png"
    side_by_side(built.last.images[:SHEET]).save(file)
    return [file.name]
