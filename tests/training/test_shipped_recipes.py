"""The shipped weights' recipes start from what the shipped weights were started from."""

from pathlib import Path

import pytest

from zoo.config.cards import card_names, read_card
from zoo.schema.safe_yaml import read_mapping

ROOT = Path(__file__).parents[2]
MADE = [
    name for name in card_names() if {"recipe", "provenance"} <= set(raw := read_card(name).raw)
    and "started_from" in raw["provenance"]
]  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_a_recipe_starts_where_its_weights_were_started(name):
    """Started from the finished weights, a second sitting would become a third one."""
    card = read_card(name)
    start = read_mapping(ROOT / card.raw["recipe"])["init_from"]
    before = card.raw["provenance"]["started_from"]
    if start in card_names():
        assert read_card(start).sha256 == before["sha256"], f"{card.raw['recipe']} starts from what it makes"
    else:
        assert Path(start).stem.startswith(before["name"]), f"{card.raw['recipe']} starts from other weights"


def test_the_sittings_follow_each_other():
    """Every card that a recipe starts from is one that another recipe's run leaves there, by the README's commands."""
    readme = (ROOT / "recipes/emoji/README.md").read_text()
    made = set()
    for line in readme.splitlines():
        if line.startswith("    zoo train recipes/emoji/"):
            words = line.split()
            name = read_mapping(ROOT / words[2])["name"]
            run = words[words.index("--run") + 1] if "--run" in words else f"runs/{name}"
            made |= {f"{run}/export/{name}.yaml", f"{run}/export/{name}-text.yaml"}
    for path in sorted((ROOT / "recipes/emoji").glob("*.yaml")):
        recipe = read_mapping(path)
        used = [recipe.get("init_from"), (recipe.get("conditioner") or {}).get("weights")]
        for card in (c for c in used if isinstance(c, str) and c.endswith(".yaml")):
            assert card in made, f"{path.name} starts from {card}, which no command of the README makes"
