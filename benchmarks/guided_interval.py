"""How guidance in an interval of noise levels keeps colours: the share of colour requests that are met.

The first stage of a pipeline draws, at each setting, the same colour requests: for each of the colours that have a hue
some names of the data, of the pairs that no training caption says (`zoo.data.variants.held_out`). A request is met
where the colour that dominates the image has the requested name (`zoo.data.colours`); `grey` is the share of images
that no hue dominates. A setting is scale[:low:high]: classifier-free guidance of that scale where
low < sigma / alpha <= high. What it does to concepts is scored by `benchmarks.hit_score --split val --set ...`.

    python -m benchmarks.guided_interval --data emoji-core-128.zip --settings 1 3 6:0.3:5
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import zoo
from benchmarks import record
from zoo.config.presets import read_preset
from zoo.data.captions import style_of
from zoo.data.colours import COLOURS, WORDS, dominant, name_of
from zoo.data.image_folder import ImageFolder
from zoo.data.pixels import grid
from zoo.data.reserved import ReservedNames
from zoo.data.variants import held_out
from zoo.diffusion.draws import stream

HELD_OUT = 0.15  # as in recipes/emoji/base-32-next.yaml
DOMINATES = 0.45  # share of the pixels that aren't white, as in zoo.data.variants
GROUPS = ("food-drink", "animals-nature", "objects", "travel-places")
RESERVED = str(Path(__file__).resolve().parent.parent / "recipes/emoji/reserved-names.sha256")


def requests(rows: Sequence[Mapping[str, Any]], each: int) -> list[tuple[str, str]]:
    """(colour, caption): for every colour `each` things of one word that are never given it in training."""
    reserved, made = ReservedNames([RESERVED]), []
    names = sorted({r["name"] for r in rows if r["group"] in GROUPS and " " not in r["name"]} - WORDS)
    styles = sorted({style_of(r) for r in rows} - {"black and white line style"})
    for colour in (name for name, facts in COLOURS.items() if facts.width):
        free = [n for n in names if held_out(f"{colour} {n}", HELD_OUT) and not reserved.holds(f"{colour} {n}")]
        for place in stream(0, f"guided-interval/{colour}").permutation(len(free))[:each]:
            made.append((colour, f"{colour} {free[int(place)]}, {styles[len(made) % len(styles)]}"))
    return made


def first_stage(pipeline: str) -> dict[str, Any]:
    """The config of a preset's first stage alone."""
    raw, _ = read_preset(pipeline)
    stage = {**raw["stages"][0], "feeds": "image"}
    return {"schema": raw["schema"], "conditioners": raw["conditioners"], "stages": [stage]}


def guidance(setting: str) -> tuple[float, float, float]:
    """scale[:low:high] as numbers."""
    scale, *interval = (float(part) for part in setting.split(":"))
    low, high = interval or (0.0, float("inf"))
    return scale, low, high


def guided(config: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """The config with its classifier-free guidance at a setting."""
    scale, low, high = guidance(setting)
    block: dict[str, Any] = {"name": "classifier-free", "scale": scale}
    if (low, high) != (0.0, float("inf")):
        block = {"name": "limited-interval", "low": low, "high": high, "guidance": block}
    stage = config["stages"][0]
    others = [g for g in stage["guidance"] if g["name"] not in ("classifier-free", "limited-interval")]
    return {**config, "stages": [{**stage, "guidance": [block, *others]}]}


def draw(pipe: Any, captions: Sequence[str], steps: int) -> Tensor:
    """uint8 (N, 3, H, W), one image a caption, seed 0."""
    return pipe(list(captions), seed=0, steps=steps, batch_size=50).tensor.mul(255).round().to(torch.uint8)


def main() -> None:
    """Draw, judge, print, write the record."""
    parser = argparse.ArgumentParser(description="Guidance in an interval and colours.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--pipeline", default="cascade-text2img", help="a preset")
    parser.add_argument("--settings", nargs="+", default=["1", "2", "3", "5", "5:0:5", "5:0.3:5"])
    parser.add_argument("--each", type=int, default=12, help="requests of each colour")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help="override the config")
    parser.add_argument("--name", help="of the record: guided-interval-NAME, the pipeline's if not given")
    parser.add_argument("--sheet", type=Path, help="a folder for a sheet of each setting")
    options = parser.parse_args()
    coloured = requests(ImageFolder(path=options.data, split="train", size=32).rows, options.each)
    found, pipe = {}, None
    for setting in options.settings:
        pipe = zoo.build(guided(first_stage(options.pipeline), setting), overrides=options.overrides)
        began = perf_counter()
        images = draw(pipe, [caption for _, caption in coloured], options.steps)
        took = perf_counter() - began
        shown = [dominant(image) for image in images.numpy()]
        names = [None if d is None or d.share < DOMINATES else name_of(d) for d in shown]
        met = [name == colour for name, (colour, _) in zip(names, coloured, strict=True)]
        grey = [d is None or d.share < DOMINATES for d in shown]
        found[setting] = {
            "colour": round(sum(met) / len(met), 4), "grey": round(sum(grey) / len(grey), 4), "seconds": round(took, 1),
        }  # fmt: skip
        print(f"{setting:<12}", found[setting], flush=True)
        if options.sheet is not None:
            options.sheet.mkdir(parents=True, exist_ok=True)
            sheet = grid(images, columns=2 * options.each)
            Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(options.sheet / f"{setting.replace(':', '-')}.png")
    assert pipe is not None
    weights = {Path(name).stem: sha256 for name, sha256 in pipe.record["weights"].items()}
    made = record.make(
        f"guided-interval-{options.name or options.pipeline}",
        settings={
            "pipeline": options.pipeline, "stage": 0, "requests": len(coloured), "steps": options.steps,
            "dominates": DOMINATES,
        },
        values=found, weights=weights, threads=torch.get_num_threads(),
    )  # fmt: skip
    path = record.RESULTS / f"{made['name']}.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    if all(before.get(key) == made[key] for key in ("settings", "weights")):  # other settings of the same measurement
        made["values"] = {**before["values"], **found}
    print(record.write(made))


if __name__ == "__main__":
    main()
