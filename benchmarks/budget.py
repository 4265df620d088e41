"""The weights' budget: MiB of each file that ships, today and in the edition that is planned, and what each buys.

Sizes of today are those of the files; of files that stay, what `storage: int8` makes of their tensors; of the next
denoiser, what it makes of the network in its recipe; of a student kept as a low-rank update of it, two factors for each
matrix. Files that are still to be made have an allowance. The table stands in recipes/emoji/README.md.

    python -m benchmarks.budget
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.config.cards import card_names, read_card
from zoo.schema.registry import registry
from zoo.training.recipe import read_recipe

MIB = 2**20
ALL, FREE = 24.0, 3.0  # MiB for all weights, and of them kept free
BASE = Path(__file__).resolve().parent.parent / "recipes/emoji/base-32-next.yaml"
RANK = 16  # of the student's update
GONE = {"emoji-ddpm-32": "leaves: shapes that nobody can name; its recipe stays"}
ALLOWED = {"emoji-sr-128": 0.9}  # MiB of what is still to be made


class Planned(NamedTuple):
    """What a file is in the next edition: MiB, and what it buys."""

    size: float
    buys: str


def int8_bytes(tensors: Mapping[str, Any]) -> int:
    """Bytes of tensors as `storage: int8` writes them."""
    from safetensors.torch import save

    from zoo.checkpoints.packed import pack
    from zoo.training.export import half

    return len(save(half(pack(tensors))))


def tensors_of(name: str) -> dict[str, Any]:
    """What the file of shipped weights holds, as floating-point tensors."""
    from zoo.checkpoints.files import read_verified
    from zoo.checkpoints.packed import unpack

    card = read_card(name)
    return unpack(read_verified(card.file, bytes=card.bytes, sha256=card.sha256), what=name)


def network_of_recipe(path: Path) -> Mapping[str, Any]:
    """The untrained tensors of a recipe's network."""
    from zoo.assemble import component

    return component("network", read_recipe(path, registry()).raw["network"]).state_dict()


def low_rank_bytes(tensors: Mapping[str, Any], rank: int) -> int:
    """Bytes of two int8 factors for each matrix or filter (as rows x all else), with a float16 scale a row."""
    matrices = [(t.shape[0], t.numel() // t.shape[0]) for t in tensors.values() if t.ndim > 1]
    return sum(rank * (rows + columns) + 2 * (rows + rank) for rows, columns in matrices)


def plan() -> dict[str, Planned | None]:
    """Every file by its name; None for one that doesn't ship any more."""

    def packed(name: str) -> float:
        return int8_bytes(tensors_of(name)) / MIB

    base = network_of_recipe(BASE)
    buys = {
        "emoji-base-32": "what is drawn: the default pipeline's first stage",
        "emoji-turbo-32": f"the same in one to four steps: a student, kept as an update of rank {RANK}",
        "emoji-base-32-text": "the words: the text tower that learned along",
        "emoji-sr-64": "32 to 64 pixels, with the caption",
        "emoji-sr-128": "64 to 128 pixels, and any image twice as large (an allowance)",
        "emoji-latent-64": "latent diffusion in Stable Diffusion's layout: export, img2img, inpainting",
        "emoji-kl-f4": "its autoencoder",
        "emoji-class-32": "drawing by class",
        "emoji-classifier-32": "classifier guidance",
        "emoji-evaluator": "the judge of all scores, in no pipeline",
    }
    sizes = {
        "emoji-base-32": int8_bytes(base) / MIB,
        "emoji-turbo-32": low_rank_bytes(base, RANK) / MIB,
        **ALLOWED,
    }
    made: dict[str, Planned | None] = {
        name: Planned(sizes[name] if name in sizes else packed(name), said) for name, said in buys.items()
    }
    return {**made, **dict.fromkeys(GONE)}


def rows() -> list[tuple[str, float, float, str]]:
    """(file, MiB today, MiB planned, what it buys) of every file, and their sum."""
    today = {name: read_card(name).bytes / MIB for name in card_names()}
    planned = plan()
    unknown = set(today) - set(planned)
    assert not unknown, f"the plan says nothing of {unknown}"
    made = [
        (name, today.get(name, 0.0), 0.0 if found is None else found.size, GONE[name] if found is None else found.buys)
        for name, found in planned.items()
    ]
    return [*made, ("all", sum(today.values()), sum(row[2] for row in made), "")]


def main() -> None:
    """Print the budget."""
    for name, today, planned, buys in rows():
        print(f"{name:<22} {today:5.2f} {planned:5.2f}  {buys}")
    print(f"{ALL - FREE:.0f} MiB may be planned: {ALL:.0f} for all, {FREE:.0f} of them kept free")


if __name__ == "__main__":
    main()
