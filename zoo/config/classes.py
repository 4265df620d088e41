"""Whether class labels fit the network that reads them, and a classifier the network that it guides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.cards import Card, check_card
from zoo.config.parts import Part, StageParts, same_schedule, whole
from zoo.schema.errors import ConfigError
from zoo.schema.registry import Registry


def check_classes(parts: StageParts, registry: Registry) -> None:
    """Refuse names that aren't the network's classes, and a classifier of other classes or another schedule."""
    givers = [c for c in parts.conditioners if c["source"] == "labels"]
    for giver in givers:
        _check_names(parts, giver, parts.network.label, parts.network.facts)
        if whole(parts.network["classes"]) and giver["null_class"] is not False and not parts.network["null_class"]:
            raise ConfigError(
                f"stage '{parts.name}': {giver.label} has a null class and {parts.network.label} was trained without; "
                "set the conditioner's null_class to false",
                code="null-class-unfit",
            )
    for guidance in parts.guidance:
        if "labels" in (guidance["needs"] or ()) and not givers and not guidance.declares("neutral"):
            raise ConfigError(
                f"stage '{parts.name}': {guidance.label} needs a class for each sample and the stage listens to no "
                "conditioner of labels; name one in listens",
                code="conditioner-missing",
            )
        if "classifier" not in guidance.facts:
            continue
        if not lent_weights(guidance):
            raise ConfigError(
                f"stage '{parts.name}': {guidance.label} has no classifier that is named by its weights; write "
                "classifier: {weights: NAME}",
                code="guide-missing",
            )
        for block in lent_weights(guidance):
            _check_classifier(parts, parts.cards(block["weights"]), givers, registry)


def lent_weights(guidance: Part) -> list[Mapping[str, Any]]:
    """The blocks `{weights: CARD}` among the arguments of a guidance."""
    return [v for v in guidance.facts.values() if isinstance(v, Mapping) and "weights" in v]


def _check_names(parts: StageParts, giver: Part, label: str, facts: Mapping[str, Any]) -> None:
    names, known, count = giver["names"], facts.get("names"), facts.get("classes")
    if not isinstance(names, list):
        return
    if whole(count) and count != len(names):
        raise ConfigError(
            f"stage '{parts.name}': {label} knows {count} classes and {giver.label} names {len(names)}; name the "
            "classes it was trained with",
            code="classes-unfit",
        )
    if isinstance(known, list) and known != names:
        wrong = next(i for i, (a, b) in enumerate(zip(known, names, strict=True)) if a != b)
        raise ConfigError(
            f"stage '{parts.name}': class {wrong} of {label} is '{known[wrong]}' and {giver.label} calls it "
            f"'{names[wrong]}'; name the classes as it was trained with them",
            code="classes-unfit",
        )


def _check_classifier(parts: StageParts, card: Card, givers: list[Part], registry: Registry) -> None:
    label = f"the classifier '{card.name}'"
    if card.kind != "network":
        raise ConfigError(
            f"stage '{parts.name}': the weights '{card.name}' are of kind '{card.kind}' where a classifier (a network) "
            "is needed; name others, see `zoo list weights`",
            code="weights-kind-wrong",
        )
    facts = {**check_card(card, registry), **card.contract}
    for giver in givers[:1]:
        _check_names(parts, giver, label, facts)
    channels, taken = parts.autoencoder["channels"], facts.get("in_channels")
    if whole(channels) and whole(taken) and channels != taken:
        raise ConfigError(
            f"stage '{parts.name}': {label} takes {taken} channels and samples have {channels}; take one trained on "
            "such samples",
            code="channels-unfit",
        )
    size = parts.stage["size"] // (parts.autoencoder["factor"] or 1)
    # Attention pool has a place for each position; a mean takes any size, and was still trained at one.
    if whole(facts.get("size")) and facts["size"] != size:
        raise ConfigError(
            f"stage '{parts.name}': {label} was trained on samples of size {facts['size']} and {parts.network.label} "
            f"is to draw samples of {size}; take one trained at that size",
            code="size-untrained",
        )
    says = {**(card.denoiser or {}), **card.contract}
    trained, told = says.get("schedule"), says.get("time_input")
    if trained is not None and not same_schedule(trained, parts.denoiser["schedule"], registry):
        raise ConfigError(
            f"stage '{parts.name}': {label} was trained under another schedule than {parts.network.label}, so it would "
            "misread the noise; take one trained under the same",
            code="schedule-unfit",
        )
    denoiser = (parts.network.card.denoiser if parts.network.card is not None else parts.stage["denoiser"]) or {}
    asked = denoiser.get("time_input", "index")
    if told is not None and told != asked:
        raise ConfigError(
            f"stage '{parts.name}': {label} is told t as '{told}' and {parts.network.label} as '{asked}'; take one "
            "trained with the same time_input",
            code="time-input-unfit",
        )
