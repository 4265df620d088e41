"""How often a pipeline draws what was requested, and in the requested colour: draw, score, record.

One image for each of the first 500 captions of a fixed shuffle of the split (rows that look like a training image
left out), and one for each of a hundred colour requests; judged by the shipped evaluator. What is scored, and what
stands beside it, is in `benchmarks.scoring`.

    python -m benchmarks.hit_score --data emoji-core-128.zip
    python -m benchmarks.hit_score --data emoji-core-128.zip --split val --count 200 --json val.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

import zoo
from benchmarks import record
from benchmarks.scoring import Scorer, sheet_of


def draw(pipe: Any, captions: Sequence[str], *, seed: int, batch_size: int) -> Tensor:
    """One image a caption, uint8 (N, 3, H, W); sample i has the noise of sample i whatever the batch."""

    def report(p: Any) -> None:
        if p.done % 10 == 0 or p.done == p.total:
            print(f"\rdrawing: step {p.done} of {p.total}", end="", file=sys.stderr)

    made = pipe(list(captions), seed=seed, batch_size=batch_size, callback=report)
    print(file=sys.stderr)
    return made.tensor.mul(255).round().to(torch.uint8)


def drawn(
    pipe: Any, captions: Sequence[str], *, seed: int, batch_size: int, keep: Path | None
) -> tuple[Tensor, float]:  # fmt: skip
    """As `draw`, and the seconds it took; of the same config, weights and captions, what a folder `keep` holds is read.

    What is kept belongs to the versions of zoo and torch that drew it; who changes them must remove it.
    """
    told = [pipe.record["config_sha256"], pipe.record["weights"], list(captions), seed, batch_size]
    name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    path = None if keep is None else keep / f"{name[:16]}.npz"
    if path is not None and path.is_file():
        with np.load(path) as file:
            return torch.from_numpy(file["images"]), float(file["seconds"])
    began = perf_counter()
    images = draw(pipe, captions, seed=seed, batch_size=batch_size)
    seconds = perf_counter() - began
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, images=images.numpy(), seconds=seconds)
    return images, seconds


def show(values: dict[str, Any]) -> None:
    """The scores as lines."""
    for name in ("generated", "ceiling_same_size", "ceiling", "floor_shuffled", "floor_nearest_training"):
        found = values[name]
        low, high = found["interval"]
        print(
            f"{name:<24} hit {found['hit']:.3f} [{low:.3f}, {high:.3f}]  concept@1 {found['concept_at_1']:.3f}  "
            f"concept@5 {found['concept_at_5']:.3f}  style {found['style']:.3f}"
        )
    print(f"{'chance':<24} hit {values['chance']:.6f}")
    for name, found in values["similarity_to_nearest_training"].items():
        print(f"nearest training image, {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    distance = values["fd"]
    print(
        f"{distance['key']} = {distance['value']:.4f} (real images, {distance['floor_count']}: {distance['floor']:.4f})"
    )
    for name, found in values.get("colour", {}).items():
        low, high = found["interval"]
        print(f"colour, {name}: {found['rate']:.3f} [{low:.3f}, {high:.3f}] of {found['count']}")


def main() -> None:
    """Draw, judge, print, write the record."""
    parser = argparse.ArgumentParser(description="The hit score and the colour score of a text-to-image pipeline.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--pipeline", nargs="+", default=["latent-text2img"], help="names or config files")
    parser.add_argument("--evaluator", default="emoji-evaluator", help="weights of kind extractor")
    parser.add_argument("--split", default="test", help="whose captions are asked for")
    parser.add_argument("--count", type=int, default=500, help="captions")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--batch-size", type=int, default=50, help="images a network call")
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help="override the config")
    parser.add_argument("--no-colours", action="store_true", help="leave the colour requests out")
    parser.add_argument("--keep", type=Path, help="folder of drawn images, used again by a later command")
    parser.add_argument("--draw-only", action="store_true", help="draw and keep, and score nothing")
    parser.add_argument("--sheet", type=Path, help="write the first 64 images here, as one")
    parser.add_argument("--json", type=Path, help="where to write the record; results/hit-score-PIPELINE.json")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    if len(options.pipeline) > 1 and (options.json or options.sheet):
        parser.error("--json and --sheet name one file, and there are several pipelines; ask for one at a time")
    if options.draw_only and options.keep is None:
        parser.error("--draw-only keeps what it draws; say where with --keep")
    scorer = Scorer(options.data, split=options.split, count=options.count, evaluator=options.evaluator)
    for pipeline in options.pipeline:
        one(pipeline, options, scorer)


def one(pipeline: str, options: argparse.Namespace, scorer: Scorer) -> None:
    """The same for one pipeline."""
    pipe = zoo.build(pipeline, overrides=options.overrides)
    told: dict[str, Any] = {"seed": options.seed, "batch_size": options.batch_size, "keep": options.keep}
    generated, took = drawn(pipe, scorer.captions, **told)
    coloured = None if options.no_colours else drawn(pipe, scorer.colour_captions, **told)[0]
    if options.draw_only:
        return
    print("judging", file=sys.stderr)
    values = scorer.score(generated, coloured)
    values["drawing_seconds"] = round(took, 1)
    show(values)
    if options.sheet is not None:
        sheet_of(generated[:64], options.sheet)
    if options.no_record:
        return
    resolved, card = pipe.record["config"], scorer.card
    made = record.make(
        f"hit-score-{resolved['name']}",
        settings={
            "pipeline": resolved["name"], "config_sha256": pipe.record["config_sha256"],
            "stages": [{k: s[k] for k in ("size", "sampler", "guidance")} for s in resolved["stages"]],
            "evaluator": f"{card.name}@{card.sha256[:8]}", "data": Path(options.data).name, "split": options.split,
            **scorer.rule, "colour_requests": 0 if coloured is None else len(coloured),
            "seed": options.seed, "batch_size": options.batch_size,
        },
        values=values, weights={**pipe.record["weights"], card.name: card.sha256},
        threads=torch.get_num_threads(),
    )  # fmt: skip
    print(record.write(made, options.json))


if __name__ == "__main__":
    main()
