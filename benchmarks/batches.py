"""How far an image changes when it is drawn in a batch of another size: noise is equal bit by bit, rounding is not.

The same prompts are drawn all at once, in batches of three, and one at a time; the record holds the largest difference
from the first, of values in [0, 1] and of the 8-bit values that an image file holds.

    python -m benchmarks.batches
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

import zoo
from benchmarks import record
from benchmarks.pictures import PROMPTS

MODEL = "latent-text2img"
SIZES = (1, 3, len(PROMPTS))
SAMPLERS = ("ddim", "euler-ancestral")  # one that draws no noise, and one that does on every step


def difference(one: Tensor, other: Tensor) -> dict[str, Any]:
    """Images (N, 3, H, W) in [0, 1] against the same ones drawn otherwise."""
    eight = (one.mul(255).round() - other.mul(255).round()).abs()
    return {
        "largest": float((one - other).abs().max()), "values_that_differ": int((eight > 0).sum()),
        "largest_of_255": int(eight.max()), "values": one.numel(),
    }  # fmt: skip


def measure(model: str, steps: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row a sampler and batch size, and the hashes of the weights."""
    rows, weights = [], {}
    for sampler in SAMPLERS:
        pipe = zoo.build(model, sampler=sampler, steps=steps)
        drawn = {size: pipe(list(PROMPTS), seed=0, batch_size=size) for size in SIZES}
        whole = drawn[len(PROMPTS)]
        weights = dict(whole.record["weights"])
        rows += [
            {"sampler": sampler, "batch": size, **difference(made.tensor, whole.tensor)}
            for size, made in drawn.items() if made is not whole
        ]  # fmt: skip
    return rows, weights


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="How far another batch size moves a picture.")
    parser.add_argument("--steps", type=int, default=10, help="sampling steps")
    parser.add_argument("--quick", action="store_true", help="two steps, and no record")
    options = parser.parse_args()
    rows, weights = measure(MODEL, 2 if options.quick else options.steps)
    for row in rows:
        print(
            f"{row['sampler']}, batches of {row['batch']}: {row['largest']:.1e}; {row['values_that_differ']} of "
            f"{row['values']} values differ, by {row['largest_of_255']} of 255 at most"
        )
    if not options.quick:
        settings = {"model": MODEL, "steps": options.steps, "pictures": len(PROMPTS), "dtype": "float32"}
        made = record.make(
            "batches", settings=settings, values={"rows": rows}, weights=weights, threads=torch.get_num_threads()
        )
        print(record.write(made))


if __name__ == "__main__":
    main()
