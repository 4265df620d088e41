"""The mean of several sittings' weights, in eight bits: how the judge is made of the sittings that its card names.

    python recipes/emoji/average.py CARD CARD ... --name emoji-evaluator --folder runs/average

Weights of one network, trained one from another, lie in one valley, and their mean is better than each (Izmailov et al.
2018). Everything but the numbers is the last card's; `provenance.mean_of` lists what was averaged, by hash.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from zoo.checkpoints.files import read_verified
from zoo.checkpoints.packed import unpack
from zoo.config.cards import Card, read_card
from zoo.training.export import write


def tensors_of(card: Card) -> dict[str, Tensor]:
    """What a card's file holds, unpacked."""
    return unpack(read_verified(card.file, bytes=card.bytes, sha256=card.sha256), what=card.name)


def mean(files: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each floating-point tensor; all else must be the same in all files (SystemExit)."""
    made: dict[str, Tensor] = {}
    for name, first in files[0].items():
        each = [file.get(name) for file in files]
        alike = [t for t in each if t is not None and t.shape == first.shape and t.dtype.is_floating_point]
        if first.dtype.is_floating_point and len(alike) == len(files):
            made[name] = torch.stack([t.float() for t in alike]).mean(dim=0)
        elif all(t is not None and torch.equal(t, first) for t in each):
            made[name] = first
        else:
            raise SystemExit(f"error: '{name}' is not of the same kind in all files; average sittings of one network")
    return made


def main() -> None:
    """Average, and write weights and card."""
    parser = argparse.ArgumentParser(description="The mean of several sittings' weights, in eight bits.")
    parser.add_argument("cards", nargs="+", help="names or cards, the last one's card is taken over")
    parser.add_argument("--name", required=True, help="of the weights")
    parser.add_argument("--folder", type=Path, required=True, help="where weights and card go")
    options = parser.parse_args()
    cards = [read_card(name) for name in options.cards]
    last = {k: v for k, v in cards[-1].raw.items() if k not in ("schema", "file", "published", "metrics")}
    last["provenance"] = {
        "mean_of": [{"recipe": card.raw.get("recipe"), "sha256": card.sha256} for card in cards],
        **last.get("provenance", {}),
    }
    print(write(options.folder, options.name, mean([tensors_of(card) for card in cards]), last, storage="int8"))


if __name__ == "__main__":
    main()
