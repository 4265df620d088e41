"""Whether a judge's score is valid: five checks of an evaluator, before anything is scored with it.

| check | is |
|---|---|
| other hand | concept@5 on drawings of a set that no training image comes from (`benchmarks.other_hand`) |
| distortions | real images of `val`, and those drawings, under growing blur, noise and cut-outs: no level scores |
| | above the one before by more than its interval, the strongest clearly below none; turned hues: recorded |
| floor | the nearest training image in the requested style scores below the real test images |
| blind | on 50 generated images, a reader who sees no caption and the judge's hit agree in at least 80 % |
| apart | its seed and network are no conditioner's, and no preset, recipe or loss of zoo names it |

    python -m benchmarks.judge --data emoji-core-128.zip --packages tarballs/ --blind blind/ blind-second/
    python -m benchmarks.judge --data emoji-core-128.zip --only-blind --blind blind-third/
    python -m benchmarks.judge --data emoji-core-128.zip --packages tarballs/ --evaluator runs/x/export/x.yaml --name x

The record is `results/judge-NAME.json`. `blind/` and `blind-second/` are what `benchmarks.blind` drew, with the answers
of their readers; without them that check is left out, and the record says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import blind, other_hand, record
from benchmarks.scoring import Scorer
from zoo.config.cards import Card, card_names, read_card
from zoo.data.captions import style_of
from zoo.data.distortions import FROM_YIQ, TO_YIQ, blurred
from zoo.data.pixels import from_uint8, to_uint8
from zoo.diffusion.draws import stream
from zoo.evaluation.extractors.clip import Clip
from zoo.evaluation.metrics.hit_score import Judge, bootstrap_intervals
from zoo.schema.safe_yaml import read_yaml

ROOT = record.ROOT
BOX = 32  # pixels a side of a cut-out, of 128
WANTED = 0.8  # of agreement with the reader


def blur(images: Tensor, sigma: float) -> Tensor:
    """uint8 (N, 3, H, H) by a Gaussian of `sigma` pixels."""
    return images if sigma == 0 else to_uint8(blurred(from_uint8(images), np.full(len(images), sigma)))


def noise(images: Tensor, deviation: float) -> Tensor:
    """Normal noise of this deviation in [-1, 1], the same field at every level."""
    if deviation == 0:
        return images
    fields = [stream(0, "judge noise", i).standard_normal(images.shape[1:], np.float32) for i in range(len(images))]
    return to_uint8(from_uint8(images) + deviation * torch.from_numpy(np.stack(fields)))


def cut_out(images: Tensor, boxes: float) -> Tensor:
    """Grey boxes of 32 pixels; a level has those of the level before, and more."""
    made, side = images.clone(), images.shape[-1]
    for i in range(len(images)):
        for top, left in stream(0, "judge cut-outs", i).integers(0, side - BOX + 1, (int(boxes), 2)):
            made[i, :, top : top + BOX, left : left + BOX] = 128
    return made


def turn_hue(images: Tensor, turn: float) -> Tensor:
    """The hue turned by a share of its circle."""
    angle = 2 * np.pi * turn
    inner = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    matrix = torch.from_numpy(FROM_YIQ @ inner @ TO_YIQ).float()
    return to_uint8(torch.einsum("ij,njhw->nihw", matrix, from_uint8(images)).clamp(-1, 1))


DISTORTIONS: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "blur": (blur, (0, 1, 2, 4, 8)),
    "noise": (noise, (0, 0.2, 0.4, 0.8, 1.6)),
    "cut-outs": (cut_out, (0, 4, 8, 16, 32)),
    "hue": (turn_hue, (0, 0.1, 0.25, 0.5)),
}  # fmt: skip
TOLD_ONLY = ("hue",)


def concept_shares(judge: Judge, embeddings: Tensor, concepts: Sequence[str]) -> dict[str, Any]:
    """concept@1 and concept@5 of images that show `concepts`, with intervals."""
    nearest, _ = judge.judge(embeddings)
    wanted = torch.tensor([judge.concepts.index(c) for c in concepts])
    right = torch.stack([nearest[:, 0] == wanted, (nearest == wanted[:, None]).any(dim=1)], dim=1).double().numpy()
    one, five = bootstrap_intervals(right)
    return {
        "concept_at_1": round(float(right[:, 0].mean()), 4), "concept_at_5": round(float(right[:, 1].mean()), 4),
        "interval_at_1": [round(x, 4) for x in one], "interval": [round(x, 4) for x in five], "count": len(concepts),
    }  # fmt: skip


Score = Callable[[Tensor], tuple[float, Sequence[float]]]  # embeddings -> a share and its interval


def under_distortions(clip: Clip, images: Tensor, score: Score) -> dict[str, Any]:
    """The score and its interval at each level of each distortion, and whether it falls as it should."""
    made: dict[str, Any] = {}
    for name, (distort, levels) in DISTORTIONS.items():
        print(f"{name}: {len(levels)} levels of {len(images)} images", file=sys.stderr)
        found = [score(clip.images(distort(images, level))) for level in levels]
        made[name] = {
            "levels": [
                {"level": level, "score": round(value, 4), "interval": [round(x, 4) for x in interval]}
                for level, (value, interval) in zip(levels, found, strict=True)
            ],
            **({} if name in TOLD_ONLY else {"holds": falls(found)}),
        }
    return made


def falls(found: Sequence[tuple[float, Sequence[float]]]) -> bool:
    """No level above the one before by more than its interval; the strongest wholly below none."""
    steps = itertools.pairwise(found)
    return all(value <= before[1][1] for before, (value, _) in steps) and found[-1][1][1] < found[0][1][0]


def same(reader: Sequence[bool], judge: Sequence[bool]) -> dict[str, Any]:
    """How often two verdicts on the same images agree, with interval, kappa (Cohen 1960), and the four counts."""
    alike = np.array([[a == b] for a, b in zip(reader, judge, strict=True)], dtype=float)
    rate, (r, j) = float(alike.mean()), (float(np.mean(reader)), float(np.mean(judge)))
    by_chance = r * j + (1 - r) * (1 - j)
    both = sum(a and b for a, b in zip(reader, judge, strict=True))
    return {
        "agreement": round(rate, 4), "interval": [round(x, 4) for x in bootstrap_intervals(alike)[0]],
        "kappa": round((rate - by_chance) / (1 - by_chance), 4) if by_chance < 1 else None,
        "both": both, "reader_only": sum(reader) - both, "judge_only": sum(judge) - both,
        "neither": len(alike) - sum(reader) - sum(judge) + both,
    }  # fmt: skip


def agreement(judge: Judge, folder: Path, scorer: Scorer, file: str = blind.ANSWERS) -> dict[str, Any]:
    """The judge's hits on the blind images against the reader's: of names and, where the set has one, of a style."""
    key, answers = json.loads((folder / "key.json").read_text()), blind.read_answers(folder, file)
    if missing := [n for n in range(1, len(key) + 1) if not answers.get(n)]:
        raise SystemExit(f"error: '{folder}/answers.csv' has no answer for {missing}; look at the sheets first")
    styles = blind.read_styles(folder, file)
    if styles is not None and (unknown := [n for n in range(1, len(key) + 1) if styles.get(n) not in judge.styles]):
        raise SystemExit(f"error: '{folder}/answers.csv' has none of the styles for {unknown}; use those of styles.png")
    rows = [scorer.split.rows[entry["row"]] for entry in key]
    images = blind.read_images(folder, [entry["size"] for entry in key])
    embeddings = torch.cat([judge.clip.images(image[None]) for image in images])
    hit, _, at_5, right_style = (verdict.tolist() for verdict in judge.verdicts(embeddings, rows))
    nearest, style = judge.judge(embeddings)
    names_it = blind.names_the_concept if styles is None else blind.picks_the_concept
    read = [names_it(answers[n], row, scorer.every) for n, row in enumerate(rows, 1)]
    seen = None if styles is None else [styles[n] == style_of(row) for n, row in enumerate(rows, 1)]
    hits = read if seen is None else [a and b for a, b in zip(read, seen, strict=True)]
    found = same(hits, hit)
    return {
        "count": len(rows), **found, "holds": found["agreement"] >= WANTED, "of_concepts": same(read, at_5),
        **({} if seen is None else {"of_styles": same(seen, right_style)}),
        "images": [
            {
                "number": n, "pipeline": entry["pipeline"], "caption": row["text"], "reader": answers[n],
                "judge": [judge.concepts[int(i)] for i in nearest[n - 1]], "reader_names_it": read[n - 1],
                "hit": hit[n - 1], "concept_at_5": at_5[n - 1], "judge_style": judge.styles[int(style[n - 1])],
                **({} if styles is None else {"reader_style": styles[n], "reader_hit": hits[n - 1]}),
            }
            for n, (entry, row) in enumerate(zip(key, rows, strict=True), 1)
        ],
    }  # fmt: skip


def apart(card: Card) -> dict[str, Any]:
    """Where zoo's presets, cards and recipes name it, besides as an evaluator; its seed and those of other cards."""
    files = [*(ROOT / "zoo/presets").glob("*.yaml"), *(ROOT / "recipes").rglob("*.yaml")]
    named = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(files)
        if _names(read_yaml(path), card.name) and path.stem != "evaluator" and not path.stem.startswith("evaluator-")
    ]
    seeds = {
        name: read_card(name).raw.get("provenance", {}).get("seed")
        for name in card_names()
        if name != card.name
    }  # fmt: skip
    mine = card.raw.get("provenance", {}).get("seed")
    shared = sorted(name for name, seed in seeds.items() if seed == mine)
    return {"named_in": named, "seed": mine, "cards_of_the_same_seed": shared, "holds": not named and not shared}


def _names(value: Any, name: str, key: str = "") -> bool:
    """Whether a config names some weights, published values apart."""
    if isinstance(value, Mapping):
        return any(_names(v, name, str(k)) for k, v in value.items() if k not in ("published", "name"))
    if isinstance(value, list):
        return any(_names(v, name, key) for v in value)
    return key in ("weights", "init_from") and str(value).endswith((name, f"{name}.yaml"))


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], Scorer]:
    """All checks of one evaluator."""
    scorer = Scorer(options.data, split="val", count=10**6, evaluator=options.evaluator)
    test = Scorer(options.data, split="test", count=10**6, evaluator=options.evaluator)
    judge, clip = scorer.judge, scorer.clip
    drawings, concepts = other_hand.drawings(options.packages, scorer.every)
    seen = concept_shares(judge, clip.images(drawings), concepts)
    values: dict[str, Any] = {
        "other_hand": {**seen, "set": f"{other_hand.PACKAGE} {other_hand.VERSION}", "chance": 5 / len(judge.concepts)}
    }

    def concept_at_5(embeddings: Tensor) -> tuple[float, Sequence[float]]:
        found = concept_shares(judge, embeddings, concepts)
        return found["concept_at_5"], found["interval"]

    rows = [scorer.split.rows[i] for i in scorer.rows]

    def hits(embeddings: Tensor) -> tuple[float, Sequence[float]]:
        found = judge.score(embeddings, rows)
        return found.hit, found.interval

    values["distortions"] = {
        "val": {"score": "hit", **under_distortions(clip, scorer.real_images(), hits)},
        "other_hand": {"score": "concept_at_5", **under_distortions(clip, drawings, concept_at_5)},
    }
    values["floor"] = {}
    for name, each in (("test", test), ("val", scorer)):
        floor, ceiling = each.floor_and_ceiling(64)
        large_floor, large_ceiling = each.floor_and_ceiling(128)
        values["floor"][name] = {
            "floor": large_floor, "ceiling": large_ceiling, "floor_64": floor, "ceiling_64": ceiling,
            "holds": large_floor["hit"] < large_ceiling["hit"] and floor["hit"] < ceiling["hit"],
        }  # fmt: skip
    values["apart"] = apart(scorer.card)
    values["blind"] = values["blind_with_style"] = None
    for folder in options.blind:
        part = "blind" if blind.read_styles(folder) is None else "blind_with_style"
        values[part] = agreement(judge, folder, scorer)
    values["bytes"] = scorer.card.bytes
    return values, scorer


BOTH = ("reader_hit", "reader_names_it")  # what two readers are compared in


def only_blind(options: argparse.Namespace) -> None:
    """The record `judge-FOLDER` of each folder that a blind reader has answered."""
    scorer = Scorer(options.data, split="val", count=10**6, evaluator=options.evaluator)
    card = scorer.card
    for folder in options.blind:
        values = agreement(scorer.judge, folder, scorer)
        if (folder / blind.SECOND).exists():
            other = agreement(scorer.judge, folder, scorer, blind.SECOND)
            values["second_reader"] = {key: value for key, value in other.items() if key != "images"}
            read = [[[i[key] for i in each["images"]] for each in (values, other)] for key in BOTH]
            found = {key: same(*both) for key, both in zip(BOTH, read, strict=True)}
            values["readers"] = {k: {n: v for n, v in f.items() if "only" not in n} for k, f in found.items()}
        made = record.make(
            f"judge-{folder.name}",
            settings={"evaluator": f"{card.name}@{card.sha256[:8]}", "data": Path(options.data).name},
            values=values, weights={card.name: card.sha256},
            threads=torch.get_num_threads(),
        )  # fmt: skip
        print(record.write(made))


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description="Whether an evaluator is a judge to trust.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--packages", type=Path, default=Path("packages"), help="folder of the npm tarballs")
    parser.add_argument("--evaluator", default="emoji-evaluator", help="weights of kind extractor, by name or card")
    parser.add_argument("--blind", type=Path, nargs="+", default=[], help="folders of benchmarks.blind, with answers")
    parser.add_argument("--name", help="of the record, judge-NAME; the evaluator's if not given")
    parser.add_argument("--no-record", action="store_true", help="print only")
    parser.add_argument("--only-blind", action="store_true", help="a record of each of those folders, and no more")
    options = parser.parse_args()
    if options.only_blind:
        return only_blind(options)
    values, scorer = measure(options)
    found = values["other_hand"]
    shares = f"concept@1 {found['concept_at_1']:.3f}, concept@5 {found['concept_at_5']:.3f} {found['interval']}"
    print(f"another hand: {shares}")
    for images, each in values["distortions"].items():
        for name in DISTORTIONS:
            levels = " ".join(f"{e['score']:.3f}" for e in each[name]["levels"])
            print(f"{images}, {name}: {levels} {each[name].get('holds', '')}")
    for split, each in values["floor"].items():
        for size in ("", "_64"):
            floor, ceiling = each[f"floor{size}"], each[f"ceiling{size}"]
            print(
                f"{split}{size}: floor {floor['hit']:.3f} {floor['interval']}, ceiling {ceiling['hit']:.3f} "
                f"{ceiling['interval']} (concept@1 {ceiling['concept_at_1']:.3f}, @5 {ceiling['concept_at_5']:.3f}, "
                f"style {ceiling['style']:.3f})"
            )
    print(f"apart: {values['apart']}")
    for part in ("blind", "blind_with_style"):
        if (told := values[part]) is None:
            continue
        print(f"{part}: agreement {told['agreement']:.3f} {told['interval']}; both {told['both']}, reader only "
              f"{told['reader_only']}, judge only {told['judge_only']}, neither {told['neither']}")  # fmt: skip
    if not options.no_record:
        card = scorer.card
        made = record.make(
            f"judge-{options.name or card.name}",
            settings={
                "evaluator": f"{card.name}@{card.sha256[:8]}", "data": Path(options.data).name,
                "trained_on": card.raw.get("data"), "provenance": card.raw.get("provenance"),
                "drawings": f"{other_hand.PACKAGE} {other_hand.VERSION}, {other_hand.LICENCE}",
            },
            values=values, weights={card.name: card.sha256}, threads=torch.get_num_threads(),
            packages=("torch", "resvg-py"),
        )  # fmt: skip
        print(record.write(made))


if __name__ == "__main__":
    main()
