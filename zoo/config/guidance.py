"""Whether a stage's list of guidance fits together and fits the stage: a part of the contract.

A list is read from its beginning, the first innermost. `limited-interval` holds another guidance and stands where that
would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.cards import check_card, read_card
from zoo.config.classes import lent_weights
from zoo.config.parts import Part, StageParts, defaults, whole, written_schedule
from zoo.config.sampling import starts_at_zero
from zoo.errors import ConfigError
from zoo.registry import Registry

ONCE = {
    "classifier-free": "the second would drop the first",
    "rescale": "the second would undo the first",
    "posterior": "there is one measured picture",
}
THRESHOLDS = ("static-threshold", "dynamic-threshold")
COMPARING = ("classifier-free", "autoguidance")  # what rescaling can undo the loudness of


def check_guidance(parts: StageParts, registry: Registry, *, first: bool) -> None:
    """Refuse guidance that excludes another, that nothing stands before, or that the stage has no use for."""
    chains = [_chain(block) for block in parts.stage["guidance"]]
    _check_together(parts, chains)
    for guidance in parts.guidance:
        name = guidance["name"]
        if name == "classifier-free" and guidance["scale"] != 1:  # which asks once, without the null condition
            _check_null(parts, guidance)
        if name == "rescale" and guidance["space"] == "eps" and starts_at_zero(parts, registry):
            raise ConfigError(
                f"stage '{parts.name}': {guidance.label} in the space eps says nothing about the sample at alpha = 0, "
                f"where {parts.sampler.label} starts on {parts.schedule.label}; rescale in the space v or x0"
            )
        if name == "autoguidance":
            _check_weaker(parts, guidance, registry)
        if name == "posterior":
            _check_posterior(parts, guidance, registry, first)


def _chain(block: str | Mapping[str, Any] | None) -> list[str]:
    """The names of a guidance and of what it holds, outermost first."""
    if block is None or isinstance(block, str):
        return [] if block is None else [block]
    return [block["name"], *_chain(block.get("guidance"))]


def _check_together(parts: StageParts, chains: list[list[str]]) -> None:
    where = f"stage '{parts.name}'"
    for name, why in ONCE.items():
        places = [i for i, chain in enumerate(chains) for _ in range(chain.count(name))]
        if len(places) > 1:
            one, other = places[:2]
            raise ConfigError(
                f"{where} has guidance '{name}' twice (entries {one} and {other} of its list), and {why}; take one out"
            )
    before: list[str] = []
    for chain in chains:
        if "classifier-free" in chain and before:
            raise ConfigError(
                f"{where}: guidance 'classifier-free' stands after guidance '{before[-1]}', which it would drop, as it "
                "asks the network itself; put it first"
            )
        if "rescale" in chain and not set(before) & set(COMPARING):
            raise ConfigError(
                f"{where}: guidance 'rescale' has nothing to rescale, as neither of {' and '.join(COMPARING)} stands "
                "before it; put it after one of them or take it out"
            )
        before += chain
    thresholds = [chain[0] for chain in chains if chain[0] in THRESHOLDS]
    if len(thresholds) > 1:
        raise ConfigError(
            f"{where}: guidance '{thresholds[0]}' and guidance '{thresholds[1]}' both hold x0 in its range, and the "
            "second finds nothing to do; take one out"
        )


def _check_null(parts: StageParts, guidance: Part) -> None:
    if not parts.conditioners:
        raise ConfigError(
            f"stage '{parts.name}': {guidance.label} compares with and without a condition and the stage listens "
            "to no conditioner; name one in listens or take the guidance out"
        )
    for conditioner in parts.conditioners:
        if not conditioner["null"] or conditioner["null_class"] is False:
            raise ConfigError(
                f"stage '{parts.name}': {guidance.label} needs a null condition and {conditioner.label} has none; "
                "take the guidance out or set its scale to 1"
            )


def _check_weaker(parts: StageParts, guidance: Part, registry: Registry) -> None:
    """Autoguidance's network sees what the stage's sees, under the same schedule."""
    blocks = lent_weights(guidance)
    if not blocks:
        raise ConfigError(
            f"stage '{parts.name}': {guidance.label} names no weaker network by its weights; write "
            "denoiser: {weights: NAME}"
        )
    card = read_card(blocks[0]["weights"])
    label = f"the weaker network '{card.name}' of {guidance.label}"
    if card.kind != "network" or card.denoiser is None:
        raise ConfigError(
            f"stage '{parts.name}': {guidance.label} names '{card.name}', which denoises nothing; name the weights of "
            "a denoiser, see `zoo list weights`"
        )
    if parts.network.card is not None and parts.network.card.path == card.path:
        raise ConfigError(
            f"stage '{parts.name}': {label} is {parts.network.label} itself, which guides nowhere; name a weaker one"
        )
    facts = {**defaults("network", card.component, registry), **check_card(card, registry), **card.contract}
    for fact, what in (("in_channels", "channels"), ("context_width", "wide tokens"), ("vector_width", "wide vectors")):
        mine, its = parts.network[fact], facts.get(fact)
        if whole(mine) and whole(its) and mine != its:
            raise ConfigError(
                f"stage '{parts.name}': {label} takes {its} {what} and {parts.network.label} {mine}; take one trained "
                "on the same samples and conditions"
            )
    written = written_schedule(card.denoiser["schedule"], registry)
    if written != written_schedule(parts.schedule.facts, registry):
        raise ConfigError(
            f"stage '{parts.name}': {label} was trained under another schedule than {parts.network.label}, so it would "
            "misread the noise; take one trained under the same"
        )


def _check_posterior(parts: StageParts, guidance: Part, registry: Registry, first: bool) -> None:
    where = f"stage '{parts.name}'"
    if not first:
        raise ConfigError(
            f"{where}: {guidance.label} holds samples to the picture of a call, which goes to the first stage; move it "
            "there"
        )
    if parts.low_res is not None:
        raise ConfigError(
            f"{where}: {guidance.label} and {parts.network.label}, which enlarges, would both take the picture of a "
            "call; take the guidance out"
        )
    factor = parts.autoencoder["factor"]
    if whole(factor) and factor != 1:
        raise ConfigError(
            f"{where}: {guidance.label} measures pixels and {parts.autoencoder.label} makes latents of them, in which "
            "no measurement of pixels is linear; use it with a denoiser of pixels"
        )
    block = guidance["measurement"]
    block = {"name": block} if isinstance(block, str) else block
    if block["name"] == "blurred" and guidance["method"] == "pigdm" and not guidance["noise"]:
        raise ConfigError(
            f"{where}: {guidance.label} by pigdm divides by what measurement 'blurred' took away altogether; say the "
            "measurement's noise, like 0.02"
        )
    shrinks = {**defaults("measurement", block["name"], registry), **block}.get("factor")
    if isinstance(shrinks, int) and whole(shrinks) and shrinks > 0 and parts.stage["size"] % shrinks:
        raise ConfigError(
            f"{where}: {guidance.label} measures pictures {shrinks} times smaller a side and the stage has size "
            f"{parts.stage['size']}; take a factor that divides it"
        )
