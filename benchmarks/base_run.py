"""The base run beside the weights that ship: the recipe's prompts, by the whole cascade, seed 0.

Rows come in pairs: above what ships, below the run's export (recipes/emoji/README.md says how it is made).

    python -m benchmarks.base_run --export runs/judged/export --image docs/images/base-run.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import zoo
from benchmarks.budget import BASE
from zoo.data.pixels import grid
from zoo.schema.registry import registry
from zoo.training.recipe import read_recipe

COLUMNS = 8


def overrides(export: Path, name: str) -> dict[str, object]:
    """The cascade with a run's denoiser and text tower; the upscaler keeps the tower that ships."""
    return {
        "stages.base.denoiser.weights": str(export / f"{name}.yaml"),
        "conditioners.text.weights": str(export / f"{name}-text.yaml"),
        "conditioners.enlarging.weights": "emoji-base-32-text",
        "stages.sr-64.listens": ["enlarging"],
    }


def paired(above: Tensor, below: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) twice -> one image whose rows of COLUMNS alternate."""
    rows = zip(above.split(COLUMNS), below.split(COLUMNS), strict=True)
    return grid(torch.cat([part for pair in rows for part in pair]), columns=COLUMNS)


def main() -> None:
    """Draw both and write the sheet."""
    parser = argparse.ArgumentParser(description="The base run beside the weights that ship.")
    parser.add_argument("--export", type=Path, required=True, help="the folder with the run's cards")
    parser.add_argument("--name", default="emoji-base-32", help="which of its averages")
    parser.add_argument("--image", type=Path, required=True)
    options = parser.parse_args()
    prompts = read_recipe(BASE, registry()).raw["objective"]["sheet_prompts"]
    drawn = []
    for changed in ({}, overrides(options.export, options.name)):
        made = zoo.build("cascade-text2img", overrides=changed)(prompts, seed=0, batch_size=len(prompts))
        drawn.append(made.tensor.mul(255).round().to(torch.uint8))
    sheet = Image.fromarray(paired(*drawn).permute(1, 2, 0).numpy())
    options.image.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256).save(options.image, optimize=True)
    print(options.image)


if __name__ == "__main__":
    main()
