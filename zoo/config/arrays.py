"""A stage that feeds arrays (signals, fields, volumes) instead of images: its keys, and what it excludes.

Its `size` is the length of each axis, and `values: [low, high]` what -1 and 1 mean; a card that was trained on
arrays states those in its contract. Such a stage draws samples themselves from noise, alone in its pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from zoo.config.cards import Cards
from zoo.config.parts import StageParts, whole
from zoo.schema.errors import ConfigError
from zoo.schema.plain import show
from zoo.schema.registry import Registry

AXES = (1, 2, 3)
VALUES = [-1.0, 1.0]


def check_extent(value: Any, where: str) -> list[int]:
    """The length of each axis, from a number for one axis or a list."""
    lengths = value if isinstance(value, list) else [value]
    if len(lengths) not in AXES or any(not whole(length) or length < 1 for length in lengths):
        raise ConfigError(
            f"{where} is {show(value)}; of arrays write the length of each axis, like 128, or [8, 16, 16] for a volume",
            code="size-invalid",
        )
    return list(lengths)


def check_values(value: Any, denoiser: Mapping[str, Any], where: str, cards: Cards) -> list[float]:
    """[low, high]: as written, or as the card of the weights says, or -1 to 1; ConfigError where the two disagree."""
    trained = _fact(denoiser, "values", cards)
    if value is None:
        value = VALUES if trained is None else trained
    numbers = isinstance(value, list) and len(value) == 2 and not any(isinstance(v, bool) for v in value)
    if not numbers or not all(isinstance(v, (int, float)) and isfinite(v) for v in value) or not value[0] < value[1]:
        raise ConfigError(
            f"{where} is {show(value)}; write [low, high], the values that -1 and 1 stand for",
            code="values-range-invalid",
        )
    if trained is not None and [float(v) for v in value] != trained:
        raise ConfigError(
            f"{where} is {show(value)} and the weights '{denoiser['weights']}' were trained on arrays of values "
            f"{show(trained)}; leave values out, their card says them",
            code="values-range-conflict",
        )
    return [float(v) for v in value]


def samples_themselves(denoiser: Mapping[str, Any], registry: Registry, cards: Cards) -> dict[str, Any]:
    """The block of the identity autoencoder, for samples of as many channels as the network takes."""
    channels = _fact(denoiser, "in_channels", cards)
    return {"name": registry.default("autoencoder"), **({"channels": channels} if whole(channels) else {})}


def _fact(denoiser: Mapping[str, Any], fact: str, cards: Cards) -> Any:
    if "weights" not in denoiser:
        return denoiser["network"].get(fact)
    card = cards(denoiser["weights"])
    return card.contract.get(fact, card.config.get(fact))


def check_arrays(stages: list[StageParts], safety: Any) -> None:
    """Refuse what works on images beside a stage of arrays, and a network of another number of axes than it draws."""
    for parts in stages:
        dims, name = parts.network["dims"], parts.name
        if parts.stage["feeds"] != "array":
            if whole(dims) and dims != 2:
                raise ConfigError(
                    f"stage '{name}' feeds {parts.stage['feeds']} and {parts.network.label} is of {dims} "
                    f"{'axis' if dims == 1 else 'axes'}, not of pictures; let it feed array",
                    code="array-axes-unfit",
                )
            continue
        if len(stages) > 1:
            raise ConfigError(
                f"stage '{name}' feeds array, which stands alone; take the other stages out",
                code="array-stage-not-alone",
            )
        if safety is not None:
            raise ConfigError(
                f"stage '{name}' feeds array and safety '{safety.get('name', 'weights')}' checks pictures; take it out",
                code="array-part-unfit",
            )
        extent = parts.stage["size"]
        if whole(dims) and dims != len(extent):
            raise ConfigError(
                f"stage '{name}': size {extent} has {len(extent)} {'axis' if len(extent) == 1 else 'axes'} and "
                f"{parts.network.label} is of {dims}; write the length of each, or set the network's dims",
                code="array-axes-unfit",
            )
        _check_alone(parts)


def _check_alone(parts: StageParts) -> None:
    name, stage = parts.name, parts.stage
    if stage["takes"] != "noise":
        raise ConfigError(
            f"stage '{name}' feeds array and takes {stage['takes']}; let it take noise", code="array-start-unfit"
        )
    if parts.low_res is not None:
        raise ConfigError(
            f"stage '{name}' feeds array and {parts.network.label} enlarges pictures; let it feed image, or take "
            "another network",
            code="array-part-unfit",
        )
    if parts.autoencoder["pictures"]:
        raise ConfigError(
            f"stage '{name}' feeds array and {parts.autoencoder.label} is one of pictures; take the autoencoder out",
            code="array-part-unfit",
        )
    for guidance in parts.guidance:
        if guidance["pictures"]:
            raise ConfigError(
                f"stage '{name}' feeds array and {guidance.label} works on pictures; take it out",
                code="array-part-unfit",
            )
