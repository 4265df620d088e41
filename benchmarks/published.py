"""What every shipped pipeline and weight publishes: measured, recorded, and written into presets and cards.

Each is measured by the code of `zoo reproduce`, with the protocols below, on the split `test` without the rows that
look like a training image. The record of NAME is `results/published-NAME.json`, and the `published:` block of its
preset or card is made from that record; where there is none, or one of other weights or of another config, there is no
block, and docs/models.md says "not measured".

    python -m benchmarks.published --data emoji-core-128.zip                   # measure all, write records and blocks
    python -m benchmarks.published --data emoji-core-128.zip --only class2img  # one, or some
    python -m benchmarks.published --data emoji-core-128.zip --n 8             # try; writes nothing
    python -m benchmarks.published --write                                     # blocks, from the records there are
    python -m benchmarks.published --check                                     # exit code 1 if one is not its record's

How far an own value may be off (`tolerance`) is a rule by metric. The same images bit for bit, and so the same
value, are expected on the same machine with the same versions; elsewhere sums are rounded in another order, and a
judge's closest decisions turn. It was chosen, not derived from runs on other machines.

| metric | tolerance |
|---|---|
| shares (hits, recall, top1) | 5 images: 5 / N |
| Fréchet distance | 1 % of the value |
| PSNR, SSIM | 0.05 dB, 0.001 |
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import zoo
from benchmarks import record
from zoo.config import cards, presets
from zoo.config.published import Published, read_published
from zoo.schema.safe_yaml import read_yaml, to_yaml

SPLIT = "test-unlike-train"  # of the rows of `test`, those that look like no training image
EXTRACTOR = "emoji-evaluator"
RECALLS = ("caption-recall-at-1", "caption-recall-at-5", "picture-recall-at-1", "picture-recall-at-5")
# Name -> metrics and N. 500 rows are the same for all; pixel-ddpm-32 takes 250 steps an image.
PIPELINES: dict[str, tuple[tuple[str, ...], int]] = {
    "latent-text2img": (("hit-score", "fd"), 500),
    "cascade-text2img": (("hit-score", "fd"), 500),
    "latent-sr-text2img": (("hit-score", "fd"), 500),
    "upscale-2x": (("psnr", "ssim", "fd"), 500),
    "class2img": (("fd",), 500),
    "pixel-ddpm-32": (("fd",), 300),
}
WEIGHTS: dict[str, tuple[tuple[str, ...], int]] = {
    "emoji-kl-f4": (("psnr", "ssim"), 500),
    "emoji-evaluator": (RECALLS, 500),
    "emoji-classifier-32": (("top1", "top1-0.125"), 500),
}
# Further values of the same metric that are published beside one: the beginning of a key.
FLOORS = {
    "fd": "fd-floor", "psnr": "psnr-bicubic", "top1": "top1-most-common", "top1-0.125": "top1-most-common",
    **{name: f"recall-at-{name[-1]}-chance" for name in RECALLS},
}  # fmt: skip
SAID = {
    "fd-floor": "real pictures", "psnr-bicubic": "as few positions, bicubic", "top1-most-common": "most common class",
    "recall-at-1-chance": "guessing", "recall-at-5-chance": "guessing",
}  # fmt: skip
DIGITS = {"fd": 5, "psnr": 3}  # decimals of a published value; 4 of all others


def tolerance(metric: str, value: float, n: int) -> float:
    """How far an own value may be off; see above."""
    if metric == "fd":
        places = 1 - math.floor(math.log10(0.01 * value)) if value > 0 else 5
        return round(0.01 * value, places)
    return {"psnr": 0.05, "ssim": 0.001}.get(metric, round(5 / n, 4))


def wanted(name: str) -> list[Published]:
    """What is to be measured of a pipeline or of weights, by its protocol; without values yet."""
    metrics, n = (PIPELINES | WEIGHTS)[name]
    return [
        Published(
            metric=metric, value=0.0, n=n, tolerance=0.0, source="", split=SPLIT,
            extractor=EXTRACTOR if name in PIPELINES else None,
        )
        for metric in metrics
    ]  # fmt: skip


def identity(name: str) -> dict[str, Any]:
    """What a record must agree with to be current: the hash of the pipeline's config, and those of all weights."""
    if name in WEIGHTS:
        return {"config_sha256": None, "weights": {name: cards.read_card(name).sha256}}
    config = zoo.check(name)
    text = json.dumps({key: config[key] for key in ("conditioners", "stages", "safety")}, sort_keys=True)
    used = [*presets.weights_of(config), EXTRACTOR]
    return {
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "weights": {card: cards.read_card(card).sha256 for card in used},
    }


def read(name: str, results: Path | None = None) -> dict[str, Any] | None:
    """The record of a pipeline or of weights; None where there is none, or one of another config or other weights."""
    path = (results or record.RESULTS) / f"published-{name}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    said = {"config_sha256": found["settings"]["config_sha256"], "weights": found["weights"]}
    return found if said == identity(name) else None


def entries(made: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The `published:` block that a record gives."""
    if made is None:
        return []
    settings, found = made["settings"], []
    for value in made["values"]["outcomes"]:
        metric, n = value["metric"], value["n"]
        entry = {
            "metric": metric, "value": round(value["value"], DIGITS.get(metric, 4)), "n": n, "split": settings["split"],
            "extractor": settings["extractor"], "seed": settings["seed"], "key": value["key"],
            "tolerance": tolerance(metric, value["value"], n), "protocol": settings["protocol"],
            "source": f"benchmarks/results/{made['name']}.json",
        }  # fmt: skip
        found.append({key: said for key, said in entry.items() if said is not None})
    return found


def file_of(name: str) -> Path:
    """The preset or the card."""
    return presets.FOLDER / f"{name}.yaml" if name in PIPELINES else cards.find_card(name)


def with_block(text: str, block: Sequence[Mapping[str, Any]]) -> str:
    """A preset's or card's text with this `published:` block at its end, or with none."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        inside = line.startswith("published:") or (inside and line[:1] in (" ", "-", "\n"))
        kept += [] if inside else [line]
    written = to_yaml({"published": list(block)}) if block else ""
    return "".join(kept) + written


def written(name: str) -> list[dict[str, Any]]:
    """The block as it stands, each entry as it was written."""
    return list(read_yaml(file_of(name)).get("published") or ())


def wrong() -> list[str]:
    """The pipelines and weights whose block isn't what their record gives."""
    return [name for name in (*PIPELINES, *WEIGHTS) if written(name) != entries(read(name))]


@cache
def judge_of(path: str) -> Any:
    """The evaluator's judge of a dataset; the captions of all concepts and styles are read once."""
    from zoo.evaluation.inputs.sources import open_source
    from zoo.evaluation.metrics.hit_score import Judge

    return Judge(zoo.load(EXTRACTOR), open_source(path).every)


def beside_hits(data: str, n: int, size: int) -> dict[str, float]:
    """What stands beside a hit score: that of the rows' real images, as small as the drawn ones, and guessing."""
    import torch

    from zoo.diffusion.draws import stream
    from zoo.evaluation.inputs.sources import open_source

    source, judge = open_source(data, split=SPLIT, size=size), judge_of(data)
    assert source.pictures is not None
    assert source.rows is not None
    places = [int(i) for i in stream(0, "captions").permutation(source.count)[:n]]
    score = judge.score(judge.clip.images(torch.stack(source.pictures(places))), [source.rows[i] for i in places])
    return {"real pictures as small (ceiling)": score.hit, "guessing": judge.chance}


def beside_enlarged(data: str, n: int, name: str) -> dict[str, dict[str, float]]:
    """What stands beside PSNR and SSIM of a pipeline that enlarges: bicubic enlargement of the same small images."""
    import torch
    import torch.nn.functional as F

    from zoo.diffusion.draws import stream
    from zoo.evaluation.inputs.sources import open_source
    from zoo.evaluation.metrics.reconstruction import psnr, ssim

    stage = zoo.check(name)["stages"][0]
    size, small = int(stage["size"]), int(cards.read_card(stage["denoiser"]["weights"]).contract["low_res"])
    source = open_source(data, split=SPLIT, size=size)
    assert source.pictures is not None
    places = [int(i) for i in stream(0, "captions").permutation(source.count)[:n]]
    true = torch.stack(source.pictures(places)).float() / 255
    large = F.interpolate(F.interpolate(true, (small,) * 2, mode="area"), (size,) * 2, mode="bicubic")
    rough = large.clamp(0, 1).mul(255).round() / 255
    return {"psnr": {"bicubic": psnr(rough, true)}, "ssim": {"bicubic": ssim(rough, true)}}


def beside(metric: str, told: Mapping[str, float]) -> dict[str, float]:
    """What stands beside another value, of all that its metric returned."""
    front = FLOORS.get(metric)
    found = next((v for key, v in told.items() if key.partition("[")[0] == front), None)
    return {} if front is None or found is None else {SAID[front]: found}


def measure(name: str, data: str, *, n: int | None = None) -> dict[str, Any]:
    """Measure one pipeline or some weights; returns the record."""
    import torch

    from zoo.evaluation.published import Claim
    from zoo.evaluation.reproduction import measure as reproduced

    of = {"pipeline": name} if name in PIPELINES else {"weights": name}
    begun = perf_counter()

    def watch(what: str, done: int, total: int) -> None:
        print(f"\r{name}: {what} {done} of {total}", end="", file=sys.stderr, flush=True)

    found = reproduced([Claim(published=p, **of) for p in wanted(name)], data=data, n=n, watch=watch)
    print(file=sys.stderr)
    assert found is not None
    outcomes: list[dict[str, Any]] = []
    enlarged: dict[str, dict[str, float]] = {}
    for outcome in found:
        if outcome.own is None:
            raise SystemExit(f"{name}: {outcome.why}")
        metric = outcome.published.metric
        count = int(str(outcome.key).rpartition("@")[2])
        size = int(zoo.check(name)["stages"][-1]["size"]) if name in PIPELINES else 0
        if metric == "hit-score":
            floors = beside_hits(data, count, size)
        elif metric in ("psnr", "ssim") and name in PIPELINES:
            enlarged = enlarged or beside_enlarged(data, count, name)
            floors = enlarged[metric]
        else:
            floors = beside(metric, outcome.beside)
        outcomes.append({
            "metric": metric, "value": round(outcome.own, 7), "n": count, "key": outcome.key,
            "error": None if outcome.error is None else round(outcome.error, 7),
            "beside": {what: round(value, 7) for what, value in floors.items()},
            "also": {key: round(value, 7) for key, value in outcome.beside.items()},
        })  # fmt: skip
    told = identity(name)
    return record.make(
        f"published-{name}",
        settings={
            "of": name, "kind": next(iter(of)), "split": SPLIT, "seed": 0, "data": Path(data).name,
            "extractor": EXTRACTOR if name in PIPELINES else None, "config_sha256": told["config_sha256"],
            "protocol": f"the split '{SPLIT}' of emoji-core-128.zip, rows by stream(0, captions)",
        },
        values={"outcomes": outcomes, "seconds": round(perf_counter() - begun, 1)},
        weights=told["weights"], threads=torch.get_num_threads(),
    )  # fmt: skip


def say(made: Mapping[str, Any]) -> None:
    """A record as lines."""
    for value in made["values"]["outcomes"]:
        floors = ", ".join(f"{what} {v:.5g}" for what, v in value["beside"].items())
        error = "" if value["error"] is None else f" +- {value['error']:.3g}"
        print(f"  {value['key']} = {value['value']:.6g}{error}" + (f" ({floors})" if floors else ""))
    print(f"  {made['values']['seconds']:.0f} s")


def main() -> None:
    """Measure, write blocks, or check them."""
    every = (*PIPELINES, *WEIGHTS)
    parser = argparse.ArgumentParser(description="Published values of what ships.")
    parser.add_argument("--data", help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument(
        "--only", nargs="+", choices=every, metavar="NAME", help="pipelines and weights; all if not given"
    )
    parser.add_argument("--n", type=int, help="fewer pictures, to try; nothing is written")
    parser.add_argument("--write", action="store_true", help="only write the blocks of the records that are there")
    parser.add_argument("--check", action="store_true", help="only tell whether the blocks are their records'")
    options = parser.parse_args()
    names = options.only or every
    if options.check:
        if stale := wrong():
            sys.exit(f"published: of {', '.join(stale)} is not what the record gives; run --write, or measure again")
        print(f"the published values of {len(every)} pipelines and weights are those of their records")
        return
    if not options.write:
        if options.data is None:
            parser.error("measuring needs --data")
        at_start = {key: said for key, said in record.code().items() if key != "zoo"}  # before records change files
        for name in names:
            made = measure(name, options.data, n=options.n) | at_start
            print(name)
            say(made)
            if options.n is None:
                record.write(made)
    for name in names if options.n is None else ():
        path = file_of(name)
        block = entries(read(name))
        read_published(block, name)
        text = path.read_text()
        if (new := with_block(text, block)) != text:
            path.write_text(new)
            print(f"wrote {len(block)} values of {name}" if block else f"{name}: not measured, so nothing is published")


if __name__ == "__main__":
    main()
