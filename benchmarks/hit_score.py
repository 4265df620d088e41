"""How often a pipeline draws what was asked for: the hit score of `zoo.evaluation.hit_score`, and what it means.

The first 500 captions of a fixed shuffle of the split, one picture each, judged by the shipped evaluator. Beside it:

| name | the pictures that are judged for the captions |
|---|---|
| `generated` | what the pipeline drew |
| `ceiling_same_size` | the real pictures, made as small as the generated ones first: the ceiling to quote |
| `ceiling` | the real pictures in the evaluator's own size |
| `floor_shuffled` | the generated pictures, each for the next caption of the shuffled list (the last for the first) |
| `floor_nearest_training` | of the training pictures in the asked style, the one nearest to the caption |
| `chance` | guessing (a number, no pictures) |

All pictures reach the evaluator at its own size, 128 pixels; smaller ones are enlarged by bicubic first. The nearest
training picture is searched by the evaluator's similarity of caption and picture at 128 pixels, and judged as small as
the generated ones. Memorisation is the cosine similarity of a picture to its nearest training picture: of the generated
ones and, as what is natural, of the real ones of the split; both, and the training pictures, at the generated size.

    python -m benchmarks.hit_score --data emoji-core-128.zip
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import zoo
from benchmarks import record
from zoo.config.cards import read_card
from zoo.data.captions import style_of
from zoo.data.draws import stream
from zoo.data.image_folder import ImageFolder
from zoo.evaluation.clip import Clip
from zoo.evaluation.hit_score import HitScore, Judge, nearest_similarity
from zoo.generation import sheet

Row = Mapping[str, Any]


def chosen(data: ImageFolder, count: int) -> list[int]:
    """The rows asked for: the first `count` of a fixed shuffle."""
    return [int(i) for i in stream(0, "captions").permutation(len(data))[:count]]


def draw(pipe: Any, captions: Sequence[str], *, seed: int, batch_size: int) -> Tensor:
    """One picture a caption, uint8 (N, 3, H, W); sample i has the noise of sample i whatever the batch."""

    def report(p: Any) -> None:
        if p.done % 10 == 0 or p.done == p.total:
            print(f"\rdrawing: step {p.done} of {p.total}", end="", file=sys.stderr)

    made = pipe(list(captions), seed=seed, batch_size=batch_size, callback=report)
    print(file=sys.stderr)
    return made.tensor.mul(255).round().to(torch.uint8)


def shrink(pictures: Tensor, size: int) -> Tensor:
    """uint8 (N, 3, H, H) by area average to (N, 3, size, size), as training pictures of that size are made."""
    if pictures.shape[-1] <= size:
        return pictures
    parts = [F.interpolate(part.float(), (size, size), mode="area") for part in pictures.split(256)]
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def nearest_in_style(captions: Tensor, rows: Sequence[Row], training: Tensor, training_rows: Sequence[Row]) -> Tensor:
    """For each caption the training picture of its style that is nearest to it, as row numbers (N,)."""
    styles = sorted({style_of(r) for r in training_rows})
    of_training = torch.tensor([styles.index(style_of(r)) for r in training_rows])
    asked = torch.tensor([styles.index(style_of(r)) for r in rows])
    likeness = captions @ training.T
    return likeness.masked_fill(asked[:, None] != of_training[None], -2.0).argmax(dim=1)


def spread(similarity: Tensor) -> dict[str, float]:
    """Mean, median and 95th percentile."""
    p50, p95 = np.quantile(similarity.numpy(), [0.5, 0.95])
    return {"mean": round(float(similarity.mean()), 4), "p50": round(float(p50), 4), "p95": round(float(p95), 4)}


def rounded(score: HitScore) -> dict[str, Any]:
    """A score as plain numbers."""
    plain = dataclasses.asdict(score)
    return {
        k: [round(x, 4) for x in v] if isinstance(v, tuple) else v if isinstance(v, int) else round(v, 4)
        for k, v in plain.items()
    }


class Reference:
    """Embeddings of real and training pictures, made once for each size that a pipeline draws."""

    def __init__(self, evaluator: Clip, split: ImageFolder, rows: Sequence[int], training: ImageFolder) -> None:
        self.evaluator, self.training = evaluator, training
        self.real = torch.from_numpy(np.stack([split.image(i) for i in rows]))
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def at(self, size: int) -> tuple[Tensor, Tensor]:
        """Unit embeddings of the rows' real pictures and of all training pictures, made as small as `size` first."""
        size = min(size, self.training.size)
        if size not in self._made:
            pictures = torch.from_numpy(self.training.images())
            small_real, small = shrink(self.real, size), shrink(pictures, size)
            self._made[size] = self.evaluator.images(small_real), self.evaluator.images(small)
        return self._made[size]


def measure(
    evaluator: Clip, generated: Tensor, split: ImageFolder, rows: Sequence[int], training: ImageFolder,
    every: Sequence[Row], reference: Reference | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All scores of `generated`, one picture for each of `rows` of the split; `every` row names the concepts."""
    reference = Reference(evaluator, split, rows, training) if reference is None else reference
    asked = [split.rows[i] for i in rows]
    judge = Judge(evaluator, every)
    size = generated.shape[-1]
    print("judging", file=sys.stderr)
    real_large, large = reference.at(training.size)
    real_small, small = reference.at(size)
    drawn = evaluator.images(generated)
    captions = evaluator.texts([r["text"] for r in asked])
    nearest = nearest_in_style(captions, asked, large, training.rows)
    score = judge.score(drawn, asked)
    ceiling = judge.score(real_small, asked)
    return {
        "generated": rounded(score),
        "ceiling_same_size": rounded(ceiling),
        "ceiling": rounded(judge.score(real_large, asked)),
        "floor_shuffled": rounded(judge.score(drawn.roll(1, dims=0), asked)),
        "floor_nearest_training": rounded(judge.score(small[nearest], asked)),
        "chance": round(judge.chance, 6),
        "share_of_ceiling": round(score.hit / ceiling.hit, 4) if ceiling.hit else None,
        "similarity_to_nearest_training": {
            "generated": spread(nearest_similarity(drawn, small)),
            "real": spread(nearest_similarity(real_small, small)),
        },
        "concepts": len(judge.concepts),
        "styles": len(judge.styles),
    }


def main() -> None:
    """Draw, judge, print, write the record."""
    parser = argparse.ArgumentParser(description="The hit score of a text-to-image pipeline.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--pipeline", nargs="+", default=["latent-text2img"], help="names or config files")
    parser.add_argument("--evaluator", default="emoji-evaluator", help="weights of kind extractor")
    parser.add_argument("--split", default="test", help="whose captions are asked for")
    parser.add_argument("--count", type=int, default=500, help="captions")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--batch-size", type=int, default=50, help="pictures a network call")
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help="override the config")
    parser.add_argument("--sheet", type=Path, help="write the first 64 pictures here, as one")
    parser.add_argument("--json", type=Path, help="where to write the record; results/hit-score-PIPELINE.json")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    if len(options.pipeline) > 1 and (options.json or options.sheet):
        parser.error("--json and --sheet name one file, and there are several pipelines; ask for one at a time")

    evaluator = zoo.load(options.evaluator)
    side = evaluator.image_size
    split = ImageFolder(path=options.data, split=options.split, size=side)
    training = ImageFolder(path=options.data, split="train", size=side)
    rows = chosen(split, options.count)
    every = ImageFolder(path=options.data, size=side).rows
    reference = Reference(evaluator, split, rows, training)
    for pipeline in options.pipeline:
        one(pipeline, options, evaluator, split, rows, training, every, reference)


def one(
    pipeline: str, options: argparse.Namespace, evaluator: Clip, split: ImageFolder, rows: Sequence[int],
    training: ImageFolder, every: Sequence[Row], reference: Reference,
) -> None:  # fmt: skip
    """The same for one pipeline."""
    pipe = zoo.build(pipeline, overrides=options.overrides)
    began = perf_counter()
    generated = draw(
        pipe, [split.rows[i]["text"] for i in rows], seed=options.seed, batch_size=options.batch_size
    )  # fmt: skip
    took = perf_counter() - began
    values = measure(evaluator, generated, split, rows, training, every, reference)
    values["drawing_seconds"] = round(took, 1)

    for name in ("generated", "ceiling_same_size", "ceiling", "floor_shuffled", "floor_nearest_training"):
        found = values[name]
        low, high = found["interval"]
        print(
            f"{name:<24} hit {found['hit']:.3f} [{low:.3f}, {high:.3f}]  concept@1 {found['concept_at_1']:.3f}  "
            f"concept@5 {found['concept_at_5']:.3f}  style {found['style']:.3f}"
        )
    print(f"{'chance':<24} hit {values['chance']:.6f}")
    for name, found in values["similarity_to_nearest_training"].items():
        print(f"nearest training picture, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    if options.sheet is not None:
        pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in generated[:64]]
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(pictures, columns=8).save(options.sheet)
    if not options.no_record:
        card = read_card(options.evaluator)
        resolved = pipe.record["config"]
        made = record.make(
            f"hit-score-{resolved['name']}",
            settings={
                "pipeline": resolved["name"], "config_sha256": pipe.record["config_sha256"],
                "stages": [{k: s[k] for k in ("size", "sampler", "guidance")} for s in resolved["stages"]],
                "evaluator": f"{card.name}@{card.sha256[:8]}", "data": Path(options.data).name, "split": options.split,
                "count": len(rows), "captions": 'the first of stream(0, "captions").permutation',
                "seed": options.seed, "batch_size": options.batch_size,
            },
            values=values, weights={**pipe.record["weights"], card.name: card.sha256},
            threads=torch.get_num_threads(),
        )  # fmt: skip
        print(record.write(made, options.json))


if __name__ == "__main__":
    main()
