"""Whether a recipe conditions on captions, labels or nothing, and whether the network has the input for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from zoo.data.captions import refuse_empty
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.types import source_of
from zoo.schema.errors import ConfigError
from zoo.training.objectives.conditions import Captions, Labels, Nothing, SmallPictures, Told


def told_of(
    network: Denoiser, conditioner: Any, rows: Sequence[Any], validation: Sequence[Any], *, labels: str | None,
    dropout: float, keep: float, precision: torch.dtype = torch.float32,
) -> Told:  # fmt: skip
    """The condition source, by the recipe's conditioner and labels."""
    reads = getattr(network.network, "reads", ("context", "mask"))
    of_labels = conditioner is not None and source_of(conditioner) == "labels"
    if labels is None and of_labels:
        raise ConfigError(
            "a conditioner of labels needs objective.labels: the column with each row's class", code="labels-unstated"
        )
    if labels is not None:
        if conditioner is not None and not of_labels:
            raise ConfigError(
                "objective.labels and a conditioner of text are both given; take one of them out",
                code="arguments-conflict",
            )
        told = Labels(labels, rows, validation, dropout=dropout, conditioner=conditioner)
        known, names = getattr(network.network, "classes", None), told.conditioner.names
        if known != len(names):
            raise ConfigError(
                f"the column '{labels}' has {len(names)} classes and the network's classes is {known}; set "
                f"network.classes to {len(names)}",
                code="classes-unfit",
            )
        return told
    if conditioner is None:
        return Nothing()
    if source_of(conditioner) != "prompts":
        raise ConfigError(
            f"a recipe's conditioner takes prompts or labels, and this one takes {source_of(conditioner)}; take it out",
            code="conditioner-untrainable",
        )
    refuse_empty([*rows, *validation])
    return Captions(
        conditioner, rows, validation, dropout=dropout, keep=keep, vector="vector" in reads, precision=precision
    )


def check_hears(network: Denoiser, told: Told, small: SmallPictures | None, *, channels: int) -> None:
    """ConfigError where the network lacks an input for its condition."""
    inner = network.network
    reads = getattr(inner, "reads", ("context", "vector", "label", "level"))
    if isinstance(told, Captions) and not {"context", "vector"} & set(reads):
        raise ConfigError(
            "the recipe has a conditioner of text and the network reads none; set network.context_width, or take the "
            "conditioner out",
            code="condition-unread",
        )
    rows = getattr(getattr(inner, "label_emb", None), "num_embeddings", None)
    if isinstance(told, Labels) and told.conditioner.null_class and rows == len(told.conditioner.names):
        raise ConfigError(
            "labels are dropped and the network has no row for nothing asked; set network.null_class: true, or "
            "objective.condition_dropout: 0",
            code="null-class-unfit",
        )
    if small is not None and small.noised and "level" not in reads:
        raise ConfigError(
            "the smaller picture is noised and the network isn't told the level; set network.level: true",
            code="level-missing",
        )
    wanted = channels if small is None else 2 * channels
    given = getattr(inner, "in_channels", wanted)
    if given != wanted:
        joined = "" if small is None else f" with a smaller picture of {channels}"
        raise ConfigError(
            f"the network takes {given} channels and samples have {channels}{joined}; "
            f"set network.in_channels to {wanted}",
            code="channels-unfit",
        )
