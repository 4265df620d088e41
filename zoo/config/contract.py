"""Whether the parts of a pipeline fit each other, from facts alone: no weight is read and torch is not needed.

A card states its facts in `contract`; for a component without weights they are its arguments, their defaults and its
literal class attributes. A fact that isn't stated is not checked. Every refusal is one sentence that names both parts
and the fix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from zoo.config.arrays import check_arrays
from zoo.config.blocks import check_block
from zoo.config.cards import Cards, check_card, check_weight_file
from zoo.config.cascade import check_cascade
from zoo.config.classes import check_classes
from zoo.config.conditions import check_conditions, conditioners_of
from zoo.config.guidance import check_guidance
from zoo.config.parts import Part, StageParts, whole
from zoo.config.prompts import check_prompts_fit
from zoo.config.sampling import check_sampling
from zoo.schema.errors import ConfigError
from zoo.schema.registry import Registry

if TYPE_CHECKING:
    from zoo.diffusion.types import StepTable

# How a stage's output may start or condition the next one.
FOLLOWS = {"latent": "latent", "image": "image", "low_res": "noise", "embedding": "noise"}
SHOWN = {"masked": "the mask with the masked image", "depth": "the depth map"}  # beside x_t, by image_condition
RGB = 3  # channels that a smaller image adds to a network's input


def check_contract(config: Mapping[str, Any], registry: Registry, cards: Cards) -> list[StepTable]:
    """Refuse parts that don't fit, and return each stage's plan.

    `config` is a pipeline written out by `check_preset`, `cards` those that it read. Weight files come last.
    """
    conditioners = {
        name: _part(block, "conditioner", f"conditioner '{name}'", registry, cards)
        for name, block in config["conditioners"].items()
    }
    check_prompts_fit(config, conditioners)
    stages = [_gather(stage, conditioners, registry, cards) for stage in config["stages"]]
    check_arrays(stages, config.get("safety"))
    check_cascade(stages, registry)
    plans = []
    for parts in stages:
        _check_latents(parts)
        check_conditions(parts)
        _check_variance(parts)
        table = check_sampling(parts, registry)
        check_guidance(parts, registry, first=parts is stages[0], table=table)
        check_classes(parts, registry)
        plans.append(table)
    _check_chain(stages)
    for card in cards.read.values():
        check_weight_file(card)
    return plans


def size_multiples(config: Mapping[str, Any], registry: Registry, cards: Cards) -> list[int]:
    """Of each stage of a checked pipeline: what the lengths of its samples' axes must be multiples of."""
    found = []
    for stage in config["stages"]:
        parts = _gather({**stage, "listens": []}, {}, registry, cards)
        factor, multiple = parts.autoencoder["factor"] or 1, parts.network["size_multiple"] or 1
        found.append(factor * multiple if whole(factor) and whole(multiple) else 1)
    return found


def _gather(stage: Mapping[str, Any], conditioners: Mapping[str, Part], registry: Registry, cards: Cards) -> StageParts:
    where = f"of stage '{stage['name']}'"
    denoiser = stage["denoiser"]
    if "weights" in denoiser:
        network = _part(denoiser, "network", "network", registry, cards)
        assert network.card is not None  # weights were given
        says: Mapping[str, Any] = network.card.denoiser or {}
    else:
        label = f"network '{denoiser['network']['name']}' {where}"
        network = _part(denoiser["network"], "network", label, registry, cards)
        says = denoiser
    schedule = says["schedule"]
    schedule = {"name": schedule} if isinstance(schedule, str) else schedule
    return StageParts(
        name=stage["name"], stage=stage, network=network,
        autoencoder=_part(stage["autoencoder"], "autoencoder", f"the autoencoder {where}", registry, cards),
        conditioners=[conditioners[name] for name in conditioners_of(stage["listens"])],
        schedule=_part(schedule, "schedule", f"the schedule '{schedule['name']}'", registry, cards),
        guidance=[_part(g, "guidance", f"guidance '{g['name']}'", registry, cards) for g in _each(stage["guidance"])],
        sampler=_part(stage["sampler"], "sampler", f"sampler '{stage['sampler']['name']}'", registry, cards),
        cards=cards,
        low_res=None if not says.get("low_res") else _low_res_part(says["low_res"], where, registry, cards),
        denoiser=says,
    )  # fmt: skip


def _each(guidance: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Every guidance of a list, and those that others hold."""
    for block in guidance:
        yield block
        inner = block.get("guidance")
        if inner is not None:
            yield from _each([{"name": inner} if isinstance(inner, str) else inner])


def _part(block: Mapping[str, Any], kind: str, label: str, registry: Registry, cards: Cards) -> Part:
    if "weights" in block:
        card = cards(block["weights"])
        written = check_card(card, registry)
        facts = {**_derive(written, kind, registry), **card.contract}
        return Part(f"{kind} '{card.name}'", facts, card)
    return Part(label, _derive(block, kind, registry))


def _low_res_part(block: str | Mapping[str, Any], where: str, registry: Registry, cards: Cards) -> Part:
    written = check_block(block, kind="low_res", where=f"low_res {where}", registry=registry)
    return _part(written, "low_res", f"low_res '{written['name']}'", registry, cards)


def _derive(block: Mapping[str, Any], kind: str, registry: Registry) -> dict[str, Any]:
    """Facts of a component without a contract: arguments over defaults over class attributes."""
    signature = registry.entry(kind, block["name"]).signature()
    defaults = {p.name: p.literal() for p in signature.parameters if not p.required}
    facts = {
        **signature.constants, **defaults, **block, "null": "null" in signature.methods or signature.open,
        "methods": None if signature.open else signature.methods,
    }  # fmt: skip
    if isinstance(target := signature.constants.get("facts"), str):  # declared by the component, never by a config
        facts |= _told(target, {name: facts.get(name) for name in signature.names})
    return facts


def _told(function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Facts that a component's own function, declared as "module:name", derives from its arguments without torch."""
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)(arguments)


def _check_latents(parts: StageParts) -> None:
    channels, wanted = parts.autoencoder["channels"], parts.network["in_channels"]
    shown = SHOWN.get(parts.denoiser.get("image_condition") or "")
    more = channels + 1 if whole(channels) else 0  # of a mask and latents
    joined = RGB if parts.low_res is not None else 0 if shown is None else 1 if shown == SHOWN["depth"] else more
    if whole(channels) and whole(wanted) and channels + joined != wanted:
        small = f" and {shown or 'the small picture'} {joined}" if joined else ""
        raise ConfigError(
            f"stage '{parts.name}': {parts.network.label} takes {wanted} channels and {parts.autoencoder.label} gives "
            f"{channels}{small}; pair it with an autoencoder of {wanted - joined} channels",
            code="channels-unfit",
        )
    given = parts.network["out_channels"]
    if whole(channels) and whole(given) and given not in (channels, 2 * channels):
        raise ConfigError(
            f"stage '{parts.name}': {parts.network.label} gives {given} channels for samples of {channels}; take one "
            f"that gives {channels}, or {2 * channels} with a learned variance",
            code="channels-unfit",
        )
    factor, multiple = parts.autoencoder["factor"] or 1, parts.network["size_multiple"] or 1
    size = parts.stage["size"]
    lengths = size if isinstance(size, list) else [size]
    wrong = next((s for s in lengths if whole(factor) and whole(multiple) and s % (factor * multiple)), None)
    if wrong is not None:
        least = factor * multiple
        raise ConfigError(
            f"stage '{parts.name}': size {wrong} is no multiple of {least}, which {parts.autoencoder.label} (factor "
            f"{factor}) and {parts.network.label} (multiple {multiple}) need together; use "
            f"{max(least, round(wrong / least) * least)}",
            code="size-indivisible",
        )


def _check_variance(parts: StageParts) -> None:
    """A learned variance is the upper half of a network's output channels (Nichol & Dhariwal 2021, eq. 15)."""
    channels, given, says = parts.autoencoder["channels"], parts.network["out_channels"], parts.network["variance"]
    if not whole(channels) or not whole(given):
        return
    learned = given == 2 * channels
    gives = f"{parts.network.label} gives {given} channels for samples of {channels}"
    read = parts.denoiser.get("variance")
    if learned and says == "fixed":
        raise ConfigError(
            f"stage '{parts.name}': {gives}, half of them a learned variance, and the contract of its card says "
            "variance 'fixed'; mend the card, or take weights that give no variance",
            code="variance-unfit",
        )
    if not learned and says == "learned":
        raise ConfigError(
            f"stage '{parts.name}': {gives}, so no variance, and the contract of its card says variance 'learned'; "
            "mend the card, or take weights that give twice as many",
            code="variance-unfit",
        )
    if learned and read is None:
        raise ConfigError(
            f"stage '{parts.name}': {gives}, half of them a learned variance, and nothing says how it is to be read; "
            "say variance: learned_range (improved DDPM, ADM, DiT) or learned (the log-variance itself) in the "
            "denoiser block of the card or the stage",
            code="variance-unstated",
        )
    if not learned and read is not None:
        raise ConfigError(
            f"stage '{parts.name}': {gives}, so no variance, and its denoiser block says variance "
            f"'{read}'; take it out",
            code="variance-unfit",
        )
    sampler = parts.stage["sampler"]
    inner = sampler.get("sampler")
    set_to = sampler.get("variance") or (inner.get("variance") if isinstance(inner, Mapping) else None)
    if learned and set_to is not None:
        raise ConfigError(
            f"stage '{parts.name}': {parts.sampler.label} is set to variance '{set_to}' and {gives}, half of them a "
            "learned variance, which is the one that counts; take variance out of the sampler",
            code="variance-unfit",
        )


def _check_chain(stages: list[StageParts]) -> None:
    """What each stage feeds against what the next takes, and where they meet in t."""
    first, last = stages[0], stages[-1]
    if first.stage["takes"] == "latent":
        raise ConfigError(
            f"stage '{first.name}' takes a latent and no stage stands before it; let it take noise",
            code="stages-unmatched",
        )
    if last.stage["feeds"] not in ("image", "latent", "array"):
        raise ConfigError(
            f"stage '{last.name}' feeds {last.stage['feeds']} and no stage stands after it; let it feed image",
            code="stages-unmatched",
        )
    for before, after in pairwise(stages):
        feeds, takes = before.stage["feeds"], after.stage["takes"]
        if FOLLOWS[feeds] != takes:
            raise ConfigError(
                f"stage '{before.name}' feeds {feeds} and stage '{after.name}' takes {takes}; "
                f"let it take {FOLLOWS[feeds]}",
                code="stages-unmatched",
            )
        if feeds == "latent":
            _check_handover(before, after)
    for parts in stages:
        if parts.stage["feeds"] not in ("latent", "low_res") and parts.stage["interval"][1] > 0.0:
            raise ConfigError(
                f"stage '{parts.name}' feeds {parts.stage['feeds']} and stops at t = {parts.stage['interval'][1]}, "
                "still noisy; end its interval at 0",
                code="interval-unfit",
            )


def _check_handover(before: StageParts, after: StageParts) -> None:
    given, taken = before.autoencoder["channels"], after.autoencoder["channels"]
    if whole(given) and whole(taken) and given != taken:
        raise ConfigError(
            f"stage '{before.name}' feeds latents of {given} channels and stage '{after.name}' has an autoencoder of "
            f"{taken}; give both the same autoencoder",
            code="channels-unfit",
        )
    if before.stage["size"] != after.stage["size"]:
        raise ConfigError(
            f"stage '{before.name}' feeds latents of size {before.stage['size']} and stage '{after.name}' has size "
            f"{after.stage['size']}; give both the same size",
            code="stage-size-unfit",
        )
    low, high = before.stage["interval"][1], after.stage["interval"][0]
    if low != high:
        raise ConfigError(
            f"stage '{before.name}' stops at t = {low} and stage '{after.name}' starts at t = {high}; let them meet",
            code="interval-unfit",
        )
