"""What was tried to make the judge better, measured alike: other sittings, means of sittings, images seen shifted.

    python -m benchmarks.judge_variants --data emoji-core-128.zip --packages tarballs/ \\
        --blind benchmarks/results/blind benchmarks/results/blind-tuning \\
        --variant shipped=emoji-evaluator mean=a.yaml,b.yaml --shifted shipped

A variant is a name and one card or several, whose weights are averaged. `--shifted` adds, for each name, the same with
the embeddings of an image and of four shifts of it averaged. All are measured on the real images of `val` (hits,
concept@1, concept@5, style), on drawings by another hand, and against the readers of blind sets; nothing of `test` is.
The record is `results/variants-of-the-judge.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from benchmarks import other_hand, record
from benchmarks.judge import agreement, concept_shares
from benchmarks.scoring import Scorer, rounded
from zoo.config.cards import read_card
from zoo.evaluation.metrics.hit_score import Judge

SHIFT = 0.03  # of the side, to the left, right, up and down


class Shifted:
    """A CLIP whose embedding of an image is the mean of five: of the image, and of it moved a little to each side."""

    def __init__(self, clip: Any) -> None:
        self.clip, self.texts = clip, clip.texts

    def images(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> unit embeddings (N, D); what comes in at a side is white."""
        by = max(1, round(SHIFT * images.shape[-1]))
        wide = F.pad(images, (by,) * 4, value=255)
        side = images.shape[-1]
        places = [(by, by), (0, by), (2 * by, by), (by, 0), (by, 2 * by)]
        seen = [self.clip.images(wide[..., y : y + side, x : x + side].contiguous()) for y, x in places]
        return F.normalize(torch.stack(seen).sum(dim=0), dim=-1)


def mean_of(cards: Sequence[str]) -> Any:
    """The CLIP whose weights are the mean of these cards'."""
    clips = [zoo.load(card) for card in cards]
    states = [clip.clip.state_dict() for clip in clips]
    clips[0].clip.load_state_dict({
        name: torch.stack([s[name].float() for s in states]).mean(dim=0).to(t.dtype) if t.is_floating_point() else t
        for name, t in states[0].items()
    })  # fmt: skip
    return clips[0]


def measured(clip: Any, scorer: Scorer, drawings: Tensor, concepts: Sequence[str], folders: Sequence[Path]) -> dict:
    """The scores of one variant."""
    judge = Judge(clip, scorer.every)
    rows = [scorer.split.rows[i] for i in scorer.rows]
    score = rounded(judge.score(clip.images(scorer.real_images()), rows))
    found: dict[str, Any] = {"val": score, "other_hand": concept_shares(judge, clip.images(drawings), concepts)}
    for folder in folders:
        found[folder.name] = {k: v for k, v in agreement(judge, folder, scorer).items() if k != "images"}
    return found


def main() -> None:
    """Measure each variant, print, record."""
    parser = argparse.ArgumentParser(description="Variants of the judge, measured alike.")
    parser.add_argument("--data", required=True, help="the emoji, a folder or zip with metadata.jsonl")
    parser.add_argument("--packages", type=Path, default=Path("packages"), help="folder of the npm tarballs")
    parser.add_argument("--blind", type=Path, nargs="+", default=[], help="folders of benchmarks.blind, with answers")
    parser.add_argument("--variant", nargs="+", required=True, metavar="NAME=CARD[,CARD]", help="what is measured")
    parser.add_argument("--shifted", nargs="*", default=[], help="names measured on shifted images, too")
    parser.add_argument("--no-record", action="store_true", help="print only")
    options = parser.parse_args()
    variants = {name: cards.split(",") for name, _, cards in (v.partition("=") for v in options.variant)}
    if unknown := [name for name in options.shifted if name not in variants]:
        parser.error(f"--shifted names {', '.join(unknown)}, which is no variant")
    scorer = Scorer(options.data, split="val", count=10**6)
    drawings, concepts = other_hand.drawings(options.packages, scorer.every)
    values: dict[str, Any] = {}
    for name, cards in variants.items():
        clip = mean_of(cards)
        for label, seen_by in {
            name: clip,
            **({f"{name}, shifted": Shifted(clip)} if name in options.shifted else {}),
        }.items():
            found = measured(seen_by, scorer, drawings, concepts, options.blind)
            values[label] = {"mean_of": [read_card(card).sha256 for card in cards], **found}
            readers = "; ".join(
                f"{f.name}: agreement {found[f.name]['agreement']:.3f}, kappa {found[f.name]['kappa']}"
                for f in options.blind
            )
            print(
                f"{label}: val hit {found['val']['hit']:.3f}, @1 {found['val']['concept_at_1']:.3f}, @5 "
                f"{found['val']['concept_at_5']:.3f}, style {found['val']['style']:.3f}; another hand @1 "
                f"{found['other_hand']['concept_at_1']:.3f}, @5 {found['other_hand']['concept_at_5']:.3f}; {readers}",
                flush=True,
            )
    if not options.no_record:
        made = record.make(
            "variants-of-the-judge",
            settings={"data": Path(options.data).name, "split": "val", "shift": SHIFT, "count": len(scorer.rows)},
            values=values, threads=torch.get_num_threads(), packages=("torch", "resvg-py"),
        )  # fmt: skip
        print(record.write(made))


if __name__ == "__main__":
    main()
