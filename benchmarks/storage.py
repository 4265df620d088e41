"""The cost of eight-bit storage where weights still ship in float16: PSNR of the autoencoder and the upscaler.

Each file is packed (zoo/checkpoints/packed.py), loaded again and compared with itself on the first images of a fixed
shuffle of the split: the autoencoder by what it makes of them, the upscaler of them at half their size.

    python -m benchmarks.storage --data emoji-core-128.zip
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from benchmarks import record
from benchmarks.budget import tensors_of
from zoo.config.cards import read_card
from zoo.data.image_folder import ImageFolder
from zoo.diffusion.draws import stream
from zoo.evaluation.metrics.reconstruction import psnr
from zoo.training import export


def packed(name: str, folder: Path) -> str:
    """The card of shipped weights written anew in eight bits."""
    card = read_card(name)
    facts = {k: v for k, v in card.raw.items() if k not in ("schema", "file", "published")}
    return str(export.write(folder, name, tensors_of(name), {**facts, "other": card.other}, storage="int8"))


@torch.no_grad()
def reconstruction(card: str, images: Tensor) -> float:
    """PSNR of an autoencoder's images, (N, 3, 64, 64) in [0, 1]."""
    model: Any = zoo.load(card)
    made = torch.cat([model.decode(model.encode(part * 2 - 1)) for part in images.split(50)])
    return psnr((made / 2 + 0.5).clamp(0, 1), images)


def upscaled(card: str, images: Tensor) -> float:
    """PSNR of an upscaler's images, (N, 3, 128, 128) in [0, 1], from their area averages."""
    pipe = zoo.build("upscale-2x", overrides={"stages.sr-128.denoiser.weights": card})
    small = F.interpolate(images, (64, 64), mode="area").mul(255).round().div(255)
    return psnr(pipe(n=len(small), image=small, seed=0, batch_size=25).tensor, images)


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="What eight-bit storage costs.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=200, help="images; the upscaler has a quarter of them")
    options = parser.parse_args()
    data = ImageFolder(path=options.data, split=options.split, size=128)
    rows = [int(i) for i in stream(0, "captions").permutation(len(data))[: options.count]]
    images = torch.from_numpy(np.stack([data.image(i) for i in rows])).float() / 255
    small = F.interpolate(images, (64, 64), mode="area")
    names = ("emoji-kl-f4", "emoji-sr-128")
    with tempfile.TemporaryDirectory() as folder:
        eight = {name: packed(name, Path(folder)) for name in names}
        values: dict[str, dict[str, Any]] = {
            "emoji-kl-f4": {"psnr": [reconstruction(c, small) for c in ("emoji-kl-f4", eight["emoji-kl-f4"])]},
            "emoji-sr-128": {
                "psnr": [upscaled(c, images[: len(images) // 4]) for c in ("emoji-sr-128", eight["emoji-sr-128"])]
            },
        }
        for name in names:
            sizes = [read_card(card).bytes for card in (name, eight[name])]
            values[name]["bytes"] = sizes
            print(name, values[name])
    made = record.make(
        "storage", settings={"data": Path(options.data).name, "split": options.split, "count": len(rows)},
        values=values, weights={name: read_card(name).sha256 for name in names}, threads=torch.get_num_threads(),
    )  # fmt: skip
    print(record.write(made))


if __name__ == "__main__":
    main()
