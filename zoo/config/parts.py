"""The components of a pipeline as its contract sees them: a label for sentences, and facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.config.blocks import make
from zoo.config.cards import Card, Cards
from zoo.schema.registry import Registry


@dataclass(frozen=True)
class Part:
    """A component of a pipeline as the contract sees it."""

    label: str
    facts: Mapping[str, Any]
    card: Card | None = None

    def __getitem__(self, fact: str) -> Any:
        return self.facts.get(fact)

    def declares(self, fact: str) -> bool:
        """Whether its arguments are those for which it declares a fact, like `neutral = {"scale": 1.0}`."""
        arguments = self.facts.get(fact)
        if not isinstance(arguments, Mapping) or not arguments:
            return False
        return all(self.facts.get(name) == value for name, value in arguments.items())


@dataclass(frozen=True)
class StageParts:
    """The parts of one stage."""

    name: str
    stage: Mapping[str, Any]
    network: Part
    autoencoder: Part
    conditioners: list[Part]
    schedule: Part
    guidance: list[Part]
    sampler: Part
    cards: Cards
    low_res: Part | None = None  # how the network is conditioned on a smaller image
    denoiser: Mapping[str, Any] = field(default_factory=dict)  # facts of the weights: schedule, parameterization, ...

    def says(self, fact: str, default: str) -> str:
        """The name of a fact that the denoiser states."""
        block = self.denoiser.get(fact, default)
        return block["name"] if isinstance(block, Mapping) else block


def whole(value: Any) -> bool:
    """Whether a fact is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def defaults(kind: str, name: str, registry: Registry) -> dict[str, Any]:
    """A component's arguments with their defaults, None where there is none or it isn't a literal."""
    return {p.name: p.literal() for p in registry.entry(kind, name).signature().parameters}


def same_schedule(one: Any, other: Any, registry: Registry) -> bool:
    """Whether two blocks mean the same schedule, however they are written."""
    return make("schedule", one, registry) == make("schedule", other, registry)
