"""A pipeline that no contract was asked about: what `zoo check` refuses, built anyway."""

from __future__ import annotations

from typing import Any

from zoo.assemble import assemble
from zoo.config.cards import Cards
from zoo.config.check import Resolved
from zoo.config.presets import check_preset
from zoo.pipeline.pipeline import Pipeline
from zoo.schema.registry import registry


def built(config: dict[str, Any]) -> Pipeline:
    """The config, unchecked but for its form."""
    cards = Cards()
    return assemble(Resolved(config=check_preset(config, registry(), cards), cards=cards.read, plans=()))
