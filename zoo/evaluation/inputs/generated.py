"""Images of a pipeline, drawn on request by sample id: they are measured without being kept.

Sample i has the noise of sample i and the request of row `order[i mod rows]`, with `order` a fixed shuffle of the rows,
so that any process can draw any shard and a longer run begins with a shorter one's images.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.acceleration.device import out_of_memory
from zoo.data.image_sets import Pictures, RepeatedPictures
from zoo.data.pixels import to_uint8
from zoo.diffusion.draws import stream
from zoo.diffusion.noise import AddressedNoise, Renumbered
from zoo.diffusion.types import source_of
from zoo.pipeline.pipeline import Pipeline
from zoo.schema.errors import UsageError, ZooError
from zoo.schema.version import __version__

HALVINGS = 6  # of the batch, where memory runs out
Row = Mapping[str, Any]


class PipelinePictures:
    """What a pipeline draws for the captions or labels of some rows, or unconditionally.

    Args:
        rows: whose `text` or `group` is requested, in a fixed shuffle, cyclically. Without rows, labels are
            every class in turn, and captions are refused.
        true: the rows' images at the pipeline's size, whose small versions an upscaling pipeline reads.
        batch_size: images a network call; halved, and counted in `notes`, where memory runs out.
    """

    def __init__(
        self, pipe: Pipeline, *, count: int, seed: int = 0, rows: Sequence[Row] | None = None,
        true: Pictures | None = None, batch_size: int | None = None, name: str = "pipeline",
    ) -> None:  # fmt: skip
        if count < 1 or (batch_size is not None and batch_size < 1):
            raise UsageError(
                f"{count} pictures in batches of {batch_size} can't be drawn; give 1 or more of each",
                code="count-out-of-range",
            )
        self.pipe, self.count, self.seed, self.batch_size, self.name = pipe, count, seed, batch_size, name
        self.notes: Counter[str] = Counter()
        self._halved = 0
        self._true = true
        heard = {source_of(c) for c in pipe.conditioners.values()}
        self._rows = list(rows or ()) if heard or pipe.stages[0].enlarges else []
        self._order = [int(i) for i in stream(0, "captions").permutation(len(self._rows))]
        self.scheme = self._check(heard)
        self._heard = heard
        self._check_words()

    def _check(self, heard: set[str]) -> str:
        """How samples get their captions or labels; UsageError where they get none."""
        stage = self.pipe.stages[0]
        if stage.enlarges and (self._true is None or not self._rows or stage.small_size is None):
            raise UsageError(
                f"'{self.name}' enlarges pictures; give it a dataset whose pictures are made small for it",
                code="low-res-missing",
            )
        if "prompts" in heard and not self._rows:
            raise UsageError(
                f"'{self.name}' draws what captions ask for; give a dataset with metadata.jsonl to compare with, or "
                "one for its captions",
                code="caption-missing",
            )
        if "labels" in heard and self._rows and not all(isinstance(r.get("group"), str) for r in self._rows):
            raise UsageError(
                f"'{self.name}' hears labels and not every row of the data has a 'group'; add it",
                code="metadata-key-missing",
            )
        if not heard:
            return "nothing is asked for"
        if not self._rows:
            return "every class in turn"
        return 'rows by stream(0, "captions").permutation, round and round'

    def _check_words(self) -> None:
        """Raises for unknown words and labels now, not when their image's turn comes."""
        rows = [self._rows[i] for i in self._order[: self.count]]
        for conditioner in self.pipe.conditioners.values():
            key = "text" if source_of(conditioner) == "prompts" else "group"
            if rows and hasattr(conditioner, "check"):
                conditioner.check([*dict.fromkeys(str(row[key]) for row in rows)])  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return self.count

    def row(self, sample: int) -> Row | None:
        """The row that a sample is drawn for."""
        return self._rows[self._order[sample % len(self._order)]] if self._rows else None

    def truth(self) -> Pictures | None:
        """The reference of each sample: the image whose small version an upscaling pipeline reads."""
        if self._true is None or not self.pipe.stages[0].enlarges:
            return None
        return RepeatedPictures(self._true, self._order, self.count)

    def captions(self) -> list[str] | None:
        """The caption of every sample, where there are any."""
        rows = [self.row(i) for i in range(self.count)]
        return [str(r["text"]) for r in rows if r is not None] if "prompts" in self._heard else None

    def record(self) -> dict[str, Any]:
        """All that decides the images, but for their number."""
        asked = [[r.get("text"), r.get("group"), r.get("file_name")] for r in (self._rows[i] for i in self._order)]
        return {
            "config_sha256": self.pipe.record.get("config_sha256"),
            "weights": dict(self.pipe.record.get("weights") or {}),
            "seed": self.seed, "words": self.scheme,
            "rows_sha256": hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest(),
            "true": None if self._true is None or not self.pipe.stages[0].enlarges else self._true.fingerprint(),
            "device": self.pipe.device.type, "dtype": _dtype(self.pipe),
            "versions": {"zoo": __version__, "torch": torch.__version__},
        }  # fmt: skip

    def fingerprint(self) -> str:
        """A hash of the record; a longer run of the same images continues a shorter one."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()

    def __call__(self, ids: Sequence[int]) -> list[Tensor]:
        while True:
            batch = min(self.batch_size or len(ids), len(ids))
            try:
                return self._draw(ids, batch)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if batch == 1 or self._halved == HALVINGS:
                    raise ZooError(
                        f"'{self.name}' ran out of memory with {batch} pictures at once; use a smaller size, dtype "
                        "bfloat16, or another device",
                        code="memory-exceeded",
                    ) from error
            self._halved += 1
            self.batch_size = (batch + 1) // 2
            self.notes[f"out of memory: batch halved to {self.batch_size}"] += 1

    def _draw(self, ids: Sequence[int], batch: int) -> list[Tensor]:
        asked: dict[str, Any] = {}
        rows = [self.row(i) for i in ids]
        if "prompts" in self._heard:
            asked["prompts"] = [str(r["text"]) for r in rows if r is not None]
        if "labels" in self._heard:
            asked["labels"] = [self._label(i) if r is None else r["group"] for i, r in zip(ids, rows, strict=True)]
        if self.pipe.stages[0].enlarges:
            asked["image"] = self._small(ids)
        noise = Renumbered(source=AddressedNoise(self.seed), numbers=tuple(ids))
        made = self.pipe(
            **asked, n=1 if {"prompts", "labels"} & set(asked) else len(ids), noise=noise,
            batch_size=batch,
        )  # fmt: skip
        refused = sum("safety" in i and not i["safety"]["allowed"] for i in made.record["images"])
        if refused:
            self.notes["refused by the safety check, and grey"] += refused
        return list(to_uint8(made.tensor * 2.0 - 1.0))

    def _label(self, sample: int) -> int:
        classes = next(
            len(getattr(c, "names", ())) for c in self.pipe.conditioners.values() if source_of(c) == "labels"
        )
        return sample % max(1, classes)

    def _small(self, ids: Sequence[int]) -> Tensor:
        """The true images of the samples' rows, made as small as the first stage takes them."""
        truth, small = self.truth(), self.pipe.stages[0].small_size
        assert truth is not None
        assert small is not None
        true = torch.stack(truth(ids)).float() / 255
        return F.interpolate(true, (small, small), mode="area")


def evaluations_of(pipe: Pipeline) -> int:
    """Denoiser evaluations of one image; guidance evaluates two conditions in one batch, which counts once."""
    stages = pipe.stages
    return sum(s.sampler.plan(s.denoiser.schedule, interval=s.interval).evaluations for s in stages)


def _dtype(pipe: Pipeline) -> str:
    found = (p.dtype for m in pipe.modules() for p in m.parameters() if p.is_floating_point())
    return str(next(found, torch.float32)).removeprefix("torch.")
