"""What weights in eight bits cost: how far images move, and how many bytes the weights take, of the shipped pipelines.

python -m benchmarks.eight_bit
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import zoo
from benchmarks import record
from zoo.acceleration.offload import content
from zoo.bench.suite import PROMPTS

PIPELINES = ("latent-text2img", "cascade-text2img")


def measured(name: str, steps: int | None) -> dict[str, Any]:
    """Each kind's images against float32's, in 255ths, and bytes of weights."""
    found: dict[str, Any] = {}
    images: dict[str, torch.Tensor] = {}
    for kind in (None, "int8", "fp8", "bfloat16"):
        half: dict[str, Any] = {"dtype": kind} if kind == "bfloat16" else {"memory": {"weights": kind}} if kind else {}
        pipe = zoo.build(name, **half)
        key = kind or "float32"
        images[key] = pipe(list(PROMPTS), seed=0, steps=steps).tensor * 255
        away = (images[key] - images["float32"]).abs()
        found[key] = {
            "bytes": sum(t.nbytes for m in pipe.modules() for t in content(m).values()),
            "mean": round(float(away.mean()), 4), "most": round(float(away.max()), 2),
        }  # fmt: skip
        print(name, key, found[key], flush=True)
    return found


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="Weights in eight bits.")
    parser.add_argument("--steps", type=int, help="sampling steps; the pipelines' own")
    options = parser.parse_args()
    values = {name: measured(name, options.steps) for name in PIPELINES}
    made = record.make(
        "eight-bit", settings={"prompts": list(PROMPTS), "steps": options.steps, "seed": 0}, values=values,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    print(record.write(made))


if __name__ == "__main__":
    main()
