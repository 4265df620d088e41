"""What zoo's training engine costs a step, next to a bare PyTorch loop of the same networks.

Both train the U-Net of a shipped recipe from the same first weights on made-up images with captions, on latents that
are ready, with captions by the same frozen text encoder, in the same precision, with fused AdamW. zoo's step is a real
one: addressed noise and captions, its objective's weighting, gradient clipping, the search for NaN, the moving average.
The bare step has none of that: torch's noise, a plain squared error, backward, step. Steps of both take turns, so that
other load on the machine falls on both alike.

    python -m benchmarks.training
    python -m benchmarks.training --quick      # three steps and no record
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import record
from zoo.assemble import component, denoiser, load_into, part
from zoo.diffusion.schedules import CosineSchedule
from zoo.schema.registry import registry
from zoo.training.engine.loop import Loop
from zoo.training.recipe import read_recipe
from zoo.training.run import Parts, objective_of, settings_of

RECIPE = record.ROOT / "recipes" / "emoji" / "latent-64.yaml"
PICTURES = 96


def captions() -> list[str]:
    """The captions of the images; words of the shipped text encoder's vocabulary."""
    things, colours, styles = ("apple", "heart", "book", "car"), ("red", "green", "blue", "black"), ("3d", "flat")
    return [f"{colour} {thing}, {style} style" for style in styles for thing in things for colour in colours]


def make_data(folder: Path) -> Path:
    """Images of noise with captions."""
    draw, texts = np.random.default_rng(0), captions()
    rows = []
    for i in range(PICTURES):
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        split = "val" if i % 8 == 0 else "train"
        rows.append({"file_name": f"{i}.png", "text": texts[i % len(texts)], "split": split})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def make_loop(folder: Path, batch_size: int) -> Loop:
    """The recipe's own loop, on the made-up images."""
    overrides = {"data.path": str(make_data(folder)), "train.batch_size": batch_size}
    recipe = read_recipe(RECIPE, registry(), overrides)
    parts = Parts(component=component, part=part, denoiser=denoiser, load_into=load_into)
    objective = objective_of(recipe, parts, folder, torch.device("cpu"))
    return Loop(objective, settings_of(recipe), folder / "run", identity=recipe.identity)


def bare_step(loop: Loop) -> Callable[[], float]:
    """A plain training step, on a copy of the loop's network."""
    settings, schedule = loop.settings, CosineSchedule()
    network = copy.deepcopy(loop.network.network).train()  # type: ignore[operator, arg-type]
    for p in network.parameters():  # type: ignore[union-attr]
        p.grad = None
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )  # type: ignore[union-attr]
    tables = [torch.from_numpy(a).float() for a in schedule((np.arange(schedule.T) + 1) / schedule.T)]
    conditioner = part("conditioner", {"weights": "emoji-base-32-text"})
    latents, texts = torch.randn(PICTURES, 4, 16, 16), captions()

    def step() -> float:
        chosen = torch.randint(len(latents), (settings.batch_size,))
        x0 = latents[chosen]
        t = torch.randint(schedule.T, (settings.batch_size,))
        alpha, sigma = (table[t].view(-1, 1, 1, 1) for table in tables)
        eps = torch.randn_like(x0)
        x_t = (alpha * x0 + sigma * eps).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            context = conditioner.states(conditioner.tokenize([texts[i % len(texts)] for i in chosen]))[0]
        with torch.autocast("cpu", settings.dtype, enabled=settings.dtype != torch.float32):
            output = network(x_t, t.float(), context=context)  # type: ignore[operator]
        loss = F.mse_loss(output.float(), alpha * eps - sigma * x0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def measure(steps: int, batch_size: int) -> dict[str, Any]:
    """Seconds a step of both, and how much longer zoo's takes."""
    with tempfile.TemporaryDirectory() as place:
        loop = make_loop(Path(place), batch_size)
        turns = {"zoo": loop.train_step, "bare": bare_step(loop)}
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for turn in range(steps + 2):
            # The order alternates, so that neither always finds the other's caches.
            for name in sorted(turns, reverse=turn % 2 == 0):
                began = perf_counter()
                turns[name]()
                if turn >= 2:  # the first turns warm up
                    seconds[name].append(perf_counter() - began)
    over = statistics.median(seconds["zoo"]) / statistics.median(seconds["bare"]) - 1.0
    return {
        "zoo_seconds_per_step": record.median_of(seconds["zoo"]),
        "bare_seconds_per_step": record.median_of(seconds["bare"]),
        "zoo_over_bare_percent": round(100 * over, 2),
    }


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="zoo's training step next to a bare PyTorch one.")
    parser.add_argument("--steps", type=int, default=60, help="steps of each to take the median of")
    parser.add_argument("--batch-size", type=int, default=64, help="samples of a step")
    parser.add_argument("--quick", action="store_true", help="three steps and no record")
    options = parser.parse_args()
    steps = 3 if options.quick else options.steps
    values = measure(steps, options.batch_size)
    print(
        f"zoo {values['zoo_seconds_per_step']['median']:.3f} s, bare {values['bare_seconds_per_step']['median']:.3f} s "
        f"a step: {values['zoo_over_bare_percent']:+.1f} %"
    )
    if not options.quick:
        settings = {
            "recipe": RECIPE.relative_to(record.ROOT).as_posix(), "steps": steps, "batch_size": options.batch_size,
            "precision": "bf16", "statistic": "median of interleaved steps",
        }  # fmt: skip
        made = record.make("training", settings=settings, values=values, threads=torch.get_num_threads())
        print(record.write(made))


if __name__ == "__main__":
    main()
