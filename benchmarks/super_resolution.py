"""Super-resolution against bicubic: PSNR and Fréchet distance on true small images, over numbers of steps.

Every image of the split is made small by area average, enlarged by the pipeline and by bicubic, and held against
itself: PSNR is the mean over images, 8-bit against 8-bit; the Fréchet distance is to the same true images, under
the named extractors. The floor is the distance of as many other true images (of the train split) to them.

    python -m benchmarks.super_resolution --data emoji-core-128.zip
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
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
from zoo.data.image_folder import ImageFolder
from zoo.data.pixels import grid
from zoo.diffusion.draws import stream
from zoo.evaluation.extractors.random_network import RandomNetwork
from zoo.evaluation.metrics.frechet import distance_key, frechet_distance
from zoo.evaluation.metrics.reconstruction import psnr, ssim

STEPS = (1, 2, 4, 6, 8)


def to_uint8(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> uint8."""
    return pictures.mul(255).round().to(torch.uint8)


def enlarge(pipe: Any, small: Tensor, *, steps: int, seed: int, batch_size: int) -> Tensor:
    """(N, 3, h, h) in [0, 1] -> (N, 3, H, H), in calls of a few batches each."""
    parts = []
    for start in range(0, len(small), 10 * batch_size):
        part = small[start : start + 10 * batch_size]
        made = pipe(n=len(part), image=part, steps=steps, seed=seed + start, batch_size=batch_size)
        parts.append(made.tensor)
        print(f"\r{steps} steps: {start + len(part)} of {len(small)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return torch.cat(parts)


def main() -> None:
    """Enlarge, measure, print, write the record."""
    parser = argparse.ArgumentParser(description="Super-resolution against bicubic.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--pipeline", default="upscale-2x", help="a pipeline's name or a config file, of one stage")
    parser.add_argument("--split", default="test", help="whose pictures are enlarged")
    parser.add_argument("--count", type=int, help="pictures; all if not given")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="numbers of steps to try")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures a network call")
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help="override the config")
    parser.add_argument("--sheet", type=Path, help="write small, bicubic, enlarged and true pictures here")
    parser.add_argument("--json", type=Path, help="where to write the record; results/super-resolution-PIPELINE.json")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()

    pipe = zoo.build(options.pipeline, overrides=options.overrides)
    stage = pipe.stages[0]
    if len(pipe.stages) != 1 or stage.small_size is None:
        parser.error(f"'{options.pipeline}' is no single stage that enlarges")
    data = ImageFolder(path=options.data, split=options.split, size=stage.size)
    order = [int(i) for i in stream(0, "captions").permutation(len(data))[: options.count]]
    truth = torch.from_numpy(np.stack([data.image(i) for i in order]))
    others = ImageFolder(path=options.data, split="train", size=stage.size)
    chosen = [int(i) for i in stream(0, "captions").permutation(len(others))[: len(order)]]
    real = torch.from_numpy(np.stack([others.image(i) for i in chosen]))
    small = F.interpolate(truth.float() / 255, (stage.small_size,) * 2, mode="area")
    bicubic = F.interpolate(small, (stage.size,) * 2, mode="bicubic", align_corners=False).clamp(0, 1)

    card = read_card("emoji-evaluator")
    network = RandomNetwork(size=stage.size)  # not smaller: what is enlarged would be made small again
    extractors: dict[str, Callable[[Tensor], Tensor]] = {
        distance_key(card.name, card.sha256, len(order)): zoo.load(card.name).images,
        distance_key(network.name, network.sha256, len(order)): network.images,
    }
    features = {key: extract(truth) for key, extract in extractors.items()}

    def measure(pictures: Tensor) -> dict[str, Any]:
        whole, true = pictures.float() / 255, truth.float() / 255
        distances = {k: round(frechet_distance(f(pictures), features[k]), 5) for k, f in extractors.items()}
        return {"psnr": round(psnr(whole, true), 3), "ssim": round(ssim(whole, true), 4), "fd": distances}

    rows: list[dict[str, Any]] = [{"what": "bicubic", **measure(to_uint8(bicubic))}]
    drawn: dict[int, Tensor] = {}
    for steps in options.steps:
        began = perf_counter()
        made = to_uint8(enlarge(pipe, small, steps=steps, seed=options.seed, batch_size=options.batch_size))
        took = perf_counter() - began
        drawn[steps] = made
        rows.append({"what": "enlarged", "steps": steps, **measure(made), "seconds": round(took, 1)})
    floor = {k: round(frechet_distance(f(real), features[k]), 5) for k, f in extractors.items()}
    for row in rows:
        name = row["what"] if "steps" not in row else f"{row['steps']} steps"
        apart = "  ".join(f"{k} {v:.4f}" for k, v in row["fd"].items())
        print(f"{name:<10} PSNR {row['psnr']:.2f}  SSIM {row['ssim']:.4f}  {apart}")
    print(f"{'floor':<10} " + "  ".join(f"{k} {v:.4f}" for k, v in floor.items()))

    default = pipe.record["config"]["stages"][0]["sampler"]["steps"]
    if options.sheet is not None:
        shown = drawn.get(default, made)[:12]
        rough = F.interpolate(small[:12], (stage.size,) * 2, mode="nearest")
        cells = torch.stack([to_uint8(rough), to_uint8(bicubic[:12]), shown, truth[:12]], 1).flatten(0, 1)
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid(cells, columns=12).permute(1, 2, 0).numpy()).save(options.sheet)
    if not options.no_record:
        resolved = pipe.record["config"]
        made_record = record.make(
            f"super-resolution-{resolved['name']}",
            settings={
                "pipeline": resolved["name"], "config_sha256": pipe.record["config_sha256"],
                "stage": {k: resolved["stages"][0].get(k) for k in ("size", "augmentation", "sampler")},
                "small_size": stage.small_size, "default_steps": default,
                "data": Path(options.data).name, "split": options.split, "count": len(order), "seed": options.seed,
                "batch_size": options.batch_size,
            },
            values={"rows": rows, "floor": floor},
            weights={**pipe.record["weights"], card.name: card.sha256}, threads=torch.get_num_threads(),
        )  # fmt: skip
        print(record.write(made_record, options.json))


if __name__ == "__main__":
    main()
