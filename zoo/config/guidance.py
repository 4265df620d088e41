"""Whether a stage's list of guidance fits together and fits the stage: a part of the contract.

A list is read from its beginning, the first innermost. `limited-interval` holds another guidance and takes its
place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zoo.config.cards import check_card
from zoo.config.classes import lent_weights
from zoo.config.parts import Part, StageParts, defaults, same_schedule, whole
from zoo.schema.errors import ConfigError
from zoo.schema.registry import Registry

if TYPE_CHECKING:
    from zoo.diffusion.types import StepTable


def check_guidance(parts: StageParts, registry: Registry, *, first: bool, table: StepTable) -> None:
    """Refuse guidance that excludes another, that lacks the one it must follow, or that the stage has no use for."""
    _check_together(parts, registry)
    for guidance in parts.guidance:
        needs = () if guidance.declares("neutral") else guidance["needs"] or ()
        if "null" in needs:
            _check_null(parts, guidance)
        if guidance.declares("undefined_at_zero") and not guidance.declares("neutral"):
            _check_at_noise(parts, guidance, table)
        if "denoiser" in guidance.facts:
            _check_weaker(parts, guidance, registry)
        if "image" in needs:
            _check_image(parts, guidance, first)
        if guidance["measurement"] is not None:
            _check_measurement(parts, guidance, registry)


def _check_together(parts: StageParts, registry: Registry) -> None:
    """A list is read from its beginning; what holds another guidance counts with it, the holder first."""
    where = f"stage '{parts.name}'"
    places = [(i, depth) for i, block in enumerate(parts.stage["guidance"]) for depth in _depths(block)]
    before: list[tuple[int, Part]] = []
    bound: Part | None = None  # by a guidance that nothing limits
    for (place, depth), guidance in zip(places, parts.guidance, strict=True):
        name, others = guidance["name"], [part for i, part in before if i != place]
        twin = next((i for i, part in before if part["name"] == name), None)
        if guidance["once"] and twin is not None:
            raise ConfigError(
                f"{where} has guidance '{name}' twice (entries {twin} and {place} of its list), and "
                f"{guidance['once']}; take one out",
                code="guidance-repeated",
            )
        if guidance["first"] and others:
            raise ConfigError(
                f"{where}: {guidance.label} stands after {others[-1].label}, {guidance['first']}; put it first",
                code="guidance-order-wrong",
            )
        if guidance["after_compares"] and not any(part["compares"] for part in others):
            able = " and ".join(registry.saying("guidance", "compares"))
            raise ConfigError(
                f"{where}: {guidance.label} {guidance['after_compares']}, as neither of {able} stands before it; put "
                "it after one of them or take it out",
                code="guidance-order-wrong",
            )
        if guidance["bounds_x0"] and depth == 0:
            if bound is not None:
                raise ConfigError(
                    f"{where}: {bound.label} and {guidance.label} both hold x0 in its range, and the second finds "
                    "nothing to do; take one out",
                    code="guidance-repeated",
                )
            bound = guidance
        before.append((place, guidance))


def _depths(block: str | Mapping[str, Any] | None) -> Iterator[int]:
    """0 for a guidance, 1 for the one that it holds, and so on."""
    depth = 0
    while block is not None:
        yield depth
        depth += 1
        block = block.get("guidance") if isinstance(block, Mapping) else None


def _check_null(parts: StageParts, guidance: Part) -> None:
    asked = [c for c in parts.conditioners if c["source"] != "request"]  # whose numbers are the same in both halves
    if not asked:
        raise ConfigError(
            f"stage '{parts.name}': {guidance.label} compares with and without a condition and the stage listens "
            "to no conditioner; name one in listens or take the guidance out",
            code="conditioner-missing",
        )
    for conditioner in asked:
        if not conditioner["null"] or conditioner["null_class"] is False:
            raise ConfigError(
                f"stage '{parts.name}': {guidance.label} needs a null condition and {conditioner.label} has none; "
                f"take the guidance out{_neutral(guidance)}",
                code="null-condition-missing",
            )


def _neutral(guidance: Part) -> str:
    given = [f"its {name} to {value:g}" for name, value in (guidance["neutral"] or {}).items()]
    return f" or set {' and '.join(given)}" if given else ""


def _check_weaker(parts: StageParts, guidance: Part, registry: Registry) -> None:
    """Autoguidance's network sees what the stage's sees, under the same schedule."""
    blocks = lent_weights(guidance)
    if not blocks:
        raise ConfigError(
            f"stage '{parts.name}': {guidance.label} names no weaker network by its weights; write "
            "denoiser: {weights: NAME}",
            code="guide-missing",
        )
    card = parts.cards(blocks[0]["weights"])
    label = f"the weaker network '{card.name}' of {guidance.label}"
    if card.kind != "network" or card.denoiser is None:
        raise ConfigError(
            f"stage '{parts.name}': {guidance.label} names '{card.name}', which denoises nothing; name the weights of "
            "a denoiser, see `zoo list weights`",
            code="weights-kind-wrong",
        )
    if parts.network.card is not None and parts.network.card.path == card.path:
        raise ConfigError(
            f"stage '{parts.name}': {label} is {parts.network.label} itself, which guides nowhere; name a weaker one",
            code="guide-unfit",
        )
    facts = {**defaults("network", card.component, registry), **check_card(card, registry), **card.contract}
    for fact, what in (("in_channels", "channels"), ("context_width", "wide tokens"), ("vector_width", "wide vectors")):
        mine, its = parts.network[fact], facts.get(fact)
        if whole(mine) and whole(its) and mine != its:
            raise ConfigError(
                f"stage '{parts.name}': {label} takes {its} {what} and {parts.network.label} {mine}; take one trained "
                "on the same samples and conditions",
                code="guide-unfit",
            )
    if not same_schedule(card.denoiser["schedule"], parts.denoiser["schedule"], registry):
        raise ConfigError(
            f"stage '{parts.name}': {label} was trained under another schedule than {parts.network.label}, so it would "
            "misread the noise; take one trained under the same",
            code="schedule-unfit",
        )


def _check_at_noise(parts: StageParts, guidance: Part, table: StepTable) -> None:
    if any(step.alpha == 0.0 for step in table.steps):
        given = ", ".join(f"{name} {value}" for name, value in guidance["undefined_at_zero"].items())
        raise ConfigError(
            f"stage '{parts.name}': {guidance.label} in the {given} says nothing about the sample at alpha = 0, where "
            f"{parts.sampler.label} starts on {parts.schedule.label}; take another "
            f"{' and '.join(guidance['undefined_at_zero'])}",
            code="alpha-zero-undefined",
        )


def _check_image(parts: StageParts, guidance: Part, first: bool) -> None:
    where = f"stage '{parts.name}'"
    if not first:
        raise ConfigError(
            f"{where}: {guidance.label} holds samples to the picture of a call, which goes to the first stage; move it "
            "there",
            code="guidance-stage-wrong",
        )
    if parts.low_res is not None:
        raise ConfigError(
            f"{where}: {guidance.label} and {parts.network.label}, which enlarges, would both take the picture of a "
            "call; take the guidance out",
            code="image-used-twice",
        )
    factor = parts.autoencoder["factor"]
    if whole(factor) and factor != 1:
        raise ConfigError(
            f"{where}: {guidance.label} measures pixels and {parts.autoencoder.label} makes latents of them, in which "
            "no measurement of pixels is linear; use it with a denoiser of pixels",
            code="latents-unfit",
        )


def _check_measurement(parts: StageParts, guidance: Part, registry: Registry) -> None:
    where, block = f"stage '{parts.name}'", guidance["measurement"]
    block = {"name": block} if isinstance(block, str) else block
    signature = registry.entry("measurement", block["name"]).signature()
    if signature.constants.get("needs_noise") and guidance.declares("inverts"):
        given = " and ".join(f"{name} {value}" for name, value in guidance["inverts"].items())
        raise ConfigError(
            f"{where}: {guidance.label} with {given} divides by what measurement '{block['name']}' took away "
            "altogether; say the measurement's noise, like 0.02",
            code="measurement-noise-missing",
        )
    shrinks = {**defaults("measurement", block["name"], registry), **block}.get("factor")
    if isinstance(shrinks, int) and whole(shrinks) and shrinks > 0 and parts.stage["size"] % shrinks:
        raise ConfigError(
            f"{where}: {guidance.label} measures pictures {shrinks} times smaller a side and the stage has size "
            f"{parts.stage['size']}; take a factor that divides it",
            code="size-indivisible",
        )
