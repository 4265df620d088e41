"""Scores of weights: `val` captions drawn with them, judged by the shipped evaluator."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from benchmarks.on_gpu.courses import Course
from zoo.bench import record
from zoo.bench.quality import hit_values
from zoo.config.cards import read_card
from zoo.config.check import resolve
from zoo.data.image_folder import FolderSource
from zoo.diffusion.draws import stream
from zoo.diffusion.types import source_of
from zoo.evaluation.metrics.hit_score import Judge

EVALUATOR, SPLIT, CAPTIONS, SHOWN, SEED = "emoji-evaluator", "val", 200, 24, 0


class Scorer:
    """The captions and the judge, built once."""

    def __init__(self, data: str, device: torch.device, *, tiny: bool = False) -> None:
        self.data, self.device = data, device
        self.every = FolderSource(data).rows
        held = [row for row in self.every if row.get("split") == SPLIT]
        if tiny:  # a judge of few concepts is built quickly
            self.every = held
        order = stream(0, "captions").permutation(len(held))[: 4 if tiny else CAPTIONS]
        self.rows: list[Mapping[str, Any]] = [held[int(i)] for i in order]
        self._judge: Judge | None = None

    def config(self, course: Course, made: Mapping[str, Path | str]) -> dict[str, Any]:
        """The course's pipeline with `made` weights in the place of those that ship, of one stage where it has more."""
        given = course.pipeline
        config = copy.deepcopy(dict(resolve(given, None, {}).config if isinstance(given, str) else given))
        for block in [stage["denoiser"] for stage in config["stages"]] + list(config["conditioners"].values()):
            if block.get("weights") in made:
                block["weights"] = str(made[block["weights"]])
        return config

    def __call__(self, config: Mapping[str, Any], *, seconds: float | None = None) -> tuple[dict[str, Any], Tensor]:
        """Quality as a record has it, and the first images, uint8 (n, 3, H, W)."""
        pipe = zoo.build(config, device=self.device)
        pipe = pipe.stage(0) if len(config["stages"]) > 1 else pipe
        prompts = any(source_of(c) == "prompts" for c in pipe.conditioners.values())
        texts = [str(row["text"]) for row in self.rows]
        words: dict[str, Any] = {"prompts": texts} if prompts else {"n": SHOWN}
        drawn = pipe(**words, seed=SEED, batch_size=len(texts) if self.device.type == "cuda" else 8).tensor
        images = drawn.mul(255).round().to(torch.uint8).cpu()
        if not prompts:
            reason = "it takes no prompts, and the hit score judges those"
            return record.quality(reason) | {"seed": SEED, "labels": "none", "samples_seed": SEED}, images
        quality = record.quality(None) | {
            "seed": SEED, "labels": f"captions of the split '{SPLIT}'", "samples_seed": SEED,
        }  # fmt: skip
        evaluator = zoo.load(EVALUATOR, device=self.device)
        if self._judge is None:
            self._judge = Judge(evaluator, self.every)
        score = self._judge.score(evaluator.images(images).float().cpu(), self.rows)
        card = read_card(EVALUATOR)
        extractor = {"name": card.name, "sha256": card.sha256, "resize": None}
        quality["values"] = hit_values(
            score, self._judge, extractor=extractor, data=self.data, split=SPLIT, size=int(images.shape[-1]),
            captions=texts,
        )  # fmt: skip
        for value in quality["values"].values():
            value |= {name: getattr(score, name) for name in ("concept_at_1", "concept_at_5", "style")}
            value["concepts"] = len(self._judge.concepts)
        return quality, images[:SHOWN]


def sheet(parts: Sequence[Tensor], path: Path) -> None:
    """Images of each part, twelve a row, one part under another; those of another size are enlarged."""
    from PIL import Image

    from zoo.data.pixels import grid

    side = max(part.shape[-1] for part in parts)
    grids = [
        grid(part.repeat_interleave(side // part.shape[-1], 2).repeat_interleave(side // part.shape[-1], 3), columns=12)
        for part in parts
    ]
    width = max(one.shape[2] for one in grids)
    whole = Image.new("RGB", (width, sum(one.shape[1] + 8 for one in grids) - 8), "white")
    top = 0
    for one in grids:
        whole.paste(Image.fromarray(one.permute(1, 2, 0).numpy()), (0, top))
        top += one.shape[1] + 8
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path)
