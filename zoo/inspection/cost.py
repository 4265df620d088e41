"""What a pipeline will cost, before it runs and without torch: network evaluations, parameters, bytes of weights.

Evaluations are the rows of each stage's plan, parameters from the headers of the weight files. The
rest of a run's memory, and its time, depend on the machine; `zoo bench` measures them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo.checkpoints.containers import read_header
from zoo.config.cards import Card
from zoo.config.check import Resolved
from zoo.inspection.facts import full_evaluations
from zoo.schema.registry import Registry

FLOAT32, FLOAT16 = 4, 2  # bytes
VOCABULARY = 49_408  # CLIP's (zoo.conditioners.vocabulary)


@dataclass(frozen=True)
class StageCost:
    """A stage's share."""

    stage: str
    evaluations: int  # of the network, for each batch of images
    exact: bool  # whether the number is exact, or a maximum
    full_evaluations: int  # those of the whole network, where a step cache shortens the others
    parameters: int | None  # of the denoising network; None where it has no weights yet


@dataclass(frozen=True)
class Cost:
    """Of all stages; `parameters` are those of every weight file that the config names, each counted once."""

    stages: tuple[StageCost, ...]
    parameters: int

    def bytes_in(self, width: int) -> int:
        """What the weights take in memory, in numbers of `width` bytes."""
        return width * self.parameters


def cost_of(resolved: Resolved, components: Registry) -> Cost:
    """The cost of a checked pipeline; WeightsError for a weight file whose header can't be read."""
    counted = {name: parameters_of(card) for name, card in resolved.cards.items()}
    stages = []
    for stage, table in zip(resolved.config["stages"], resolved.plans, strict=True):
        full = full_evaluations(table.evaluations, stage.get("step_cache"), components)
        own = counted.get(stage["denoiser"].get("weights"))
        stages.append(StageCost(stage["name"], table.evaluations, not table.at_most, full, own))
    return Cost(tuple(stages), sum(counted.values()))


def parameters_of(card: Card) -> int:
    """How many numbers a card's component has once it is loaded, by its weight file's header alone."""
    if card.source is not None:
        return card.source.parameters
    tensors = read_header(card.file).tensors
    found = 0
    for name, tensor in tensors.items():
        packed = name.endswith(".scale") and f"{name.removesuffix('.scale')}.int8" in tensors
        if packed or name.startswith(tuple(card.other)):
            continue
        shape = tensor.shape
        if name.removesuffix(".int8") == "token_embedding.weight" and "token_ids" in tensors:
            shape = (VOCABULARY, *shape[1:])  # a compact table of tokens is restored on loading
        found += 0 if name == "token_ids" else math.prod(shape)
    return found
