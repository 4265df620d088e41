"""A run's own pipeline: that beside its recipe (NAME-draw.yaml, of `zoo new`), with the weights that this run made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.schema.errors import ConfigError
from zoo.schema.files import write_atomically
from zoo.schema.safe_yaml import read_mapping, to_yaml
from zoo.training.recipe import Recipe

ENDING = "-draw.yaml"


def write(recipe: Recipe, cards: Sequence[Path]) -> Path | None:
    """Write NAME-draw.yaml beside the cards; None where no pipeline beside the recipe draws with weights like these.

    Its weights are bare file names, so that the folder may be moved, and read from anywhere.
    """
    beside = recipe.source.with_name(recipe.source.stem + ENDING)
    try:
        pipeline = read_mapping(beside)
    except ConfigError:
        return None
    made = {card.name for card in cards}
    found: list[str] = []
    own = _with(pipeline, made, found)
    if not found:
        return None
    place = cards[0].parent / f"{recipe.name}{ENDING}"
    said = f"# Draws with the weights beside it, as '{beside.name}' said when they were trained.\n"
    write_atomically(place, (said + to_yaml(own)).encode())
    return place


def _with(value: Any, made: set[str], found: list[str]) -> Any:
    """A copy whose weights are those of `made`, by their files' names; `found` gets those that are."""
    if isinstance(value, Mapping):
        copied = {key: _with(inner, made, found) for key, inner in value.items()}
        if isinstance(name := value.get("weights"), str) and Path(name).name in made:
            copied["weights"] = Path(name).name
            found.append(name)
        return copied
    return [_with(inner, made, found) for inner in value] if isinstance(value, list) else value
