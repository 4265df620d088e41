"""The LoRAs of a pipeline, merged into its networks' weights in place, and taken out of them again bit for bit.

A weight that LoRAs change is computed from what it was before the first of them, which is kept in the host's memory. It
stays where it is: nothing that was compiled or recorded has to be made anew, and drawing costs what it cost without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.checkpoints.folders import read_json
from zoo.config.adapters import check_adapters, settings_file
from zoo.config.blocks import make
from zoo.config.card import Card
from zoo.config.conditions import conditioners_of
from zoo.config.overrides import listed
from zoo.families.lora.merge import Adapted, merged, read_lora
from zoo.families.lora.spelling import targets_of
from zoo.families.stable_diffusion.containers import open_container
from zoo.schema.errors import NumericError, UsageError
from zoo.schema.plain import to_plain
from zoo.schema.registry import Registry

Carriers = Mapping[str, nn.Module]  # what the parts of a LoRA change: `unet`, `text_encoder`, `text_encoder_2`, ...
# A weight -> the LoRAs that change it, with their scales.
_Wanted = dict[tuple[nn.Module, str], list[tuple[Sequence[Adapted], float]]]
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class Adapters:
    """The LoRAs of a pipeline: `pipe.adapters.set(["style.safetensors:0.8"])`; `set([])` takes them out.

    Args:
        stages: the pipeline's, by name -> the modules that a LoRA for it changes.
        record: called with the entries whenever they change.
    """

    def __init__(self, stages: Mapping[str, Carriers], record: Callable[[list[dict[str, Any]]], None]) -> None:
        self.stages, self._record = stages, record
        self.entries: list[dict[str, Any]] = []  # as in a config: file, scale, stage, sha256
        self._read: dict[tuple[str, str], dict[str, list[Adapted]]] = {}  # (stage, hash) -> part -> matrices
        self._before: dict[tuple[nn.Module, str], Tensor] = {}  # weights as they were before any LoRA
        self._wanted: _Wanted = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        each = (f"{Path(e['file']).name}:{e['scale']:g} on {e['stage']}" for e in self.entries)
        return f"Adapters({', '.join(each) or 'none'})"

    def set(self, adapters: Any) -> None:
        """Adapt by these LoRAs and no others: files, `FILE:SCALE`, or mappings as in a config.

        A file that is in use already isn't read again. Raises ConfigError and WeightsError before anything changes, and
        NumericError where a weight overflows its precision; then the pipeline is without LoRAs.
        """
        given = to_plain(listed({"adapters": adapters})["adapters"] if adapters else [], "adapters")
        entries = check_adapters(given, list(self.stages))
        read = {}
        for entry in entries:
            key = (entry["stage"], entry["sha256"])
            read[key] = self._read.get(key) or read_entry(entry, self.stages[entry["stage"]])
        wanted: _Wanted = {}
        for entry in entries:
            for part, found in read[entry["stage"], entry["sha256"]].items():
                for one in found:
                    place = (self.stages[entry["stage"]][part], one.target.weight)
                    wanted.setdefault(place, []).append(([one], entry["scale"]))
        places = list({**wanted, **self._before})
        there = {module: dict(module.named_parameters()) for module in dict(places)}
        for module, name in places:
            weight = there[module].get(name)
            if weight is None or weight.is_meta:
                raise UsageError(
                    f"'{name}' of {type(module).__name__} is in eight bits or offloaded, and a LoRA changes weights "
                    "in place; give LoRAs while the pipeline is built, or leave weights and offload out",
                    code="option-conflict",
                )
        try:
            for place, loras in wanted.items():
                self._merge(place, loras)
            self._restore(place for place in list(self._before) if place not in wanted)
        except BaseException:
            self._restore(list(self._before))
            self._remember({}, [], {})
            raise
        self._remember(read, entries, wanted)

    def change(self, module: nn.Module) -> bool:
        """Whether a weight of a module is adapted."""
        return any(one is module for one, _ in self._wanted)

    @torch.no_grad()
    def merged_into(self, module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of weights that were read again for a module, those that are adapted, with its LoRAs."""
        what = type(module).__name__
        changed = [(name, loras) for (one, name), loras in self._wanted.items() if one is module]
        return {name: merged({name: weights[name]}, loras, what=what)[name] for name, loras in changed}

    def _remember(
        self, read: dict[tuple[str, str], dict[str, list[Adapted]]], entries: list[dict[str, Any]], wanted: _Wanted
    ) -> None:
        self._read, self.entries, self._wanted = read, entries, wanted
        self._record(entries)

    @torch.no_grad()
    def _merge(self, place: tuple[nn.Module, str], loras: Sequence[tuple[Sequence[Adapted], float]]) -> None:
        module, name = place
        weight = module.get_parameter(name)
        if place not in self._before:
            self._before[place] = weight.detach().to("cpu", copy=True)
        before = self._before[place].to(weight.device)
        changed = merged({name: before}, loras, what=type(module).__name__)[name].to(weight.dtype)
        if not bool(torch.isfinite(changed).all()):
            raise NumericError(
                f"the LoRAs take '{name}' of {type(module).__name__} beyond {str(weight.dtype).removeprefix('torch.')}"
                "; lower their scales, or draw in float32",
                code="network-not-finite",
            )
        weight.copy_(changed)

    @torch.no_grad()
    def _restore(self, places: Iterable[tuple[nn.Module, str]]) -> None:
        for module, name in places:
            module.get_parameter(name).copy_(self._before.pop((module, name)))


def carriers(network: nn.Module, conditioners: Iterable[Any]) -> Carriers:
    """The modules that a LoRA for a stage changes: its network, and those of its conditioners that can carry one."""
    towers = [c for c in conditioners if isinstance(c, nn.Module) and hasattr(c, "adapter_names")]
    return {"unet": network, **dict(zip(_ENCODERS, towers, strict=False))}


def read_entry(entry: Mapping[str, Any], of: Carriers, *, meta: bool = False) -> dict[str, list[Adapted]]:
    """The LoRA of an entry by part; with `meta` from its header alone, with no numbers."""
    file, what = Path(entry["file"]), f"'{entry['file']}'"
    container, settings = open_container(file), settings_file(file)
    tensors = container.tensors(list(container.shapes))
    if meta:
        tensors = {name: tensor.to("meta") for name, tensor in tensors.items()}
    found = read_lora(
        tensors, {part: targets_of(module) for part, module in of.items()}, what=what, metadata=container.metadata,
        config=None if settings is None else read_json(settings),
    )  # fmt: skip
    parts: dict[str, list[Adapted]] = {}
    for one in found:
        parts.setdefault(one.part, []).append(one)
    return parts


def check(config: Mapping[str, Any], cards: Mapping[str, Card], known: Registry) -> None:
    """WeightsError where a LoRA of a checked config doesn't fit its stage's networks; no weight is read."""
    stages = {stage["name"]: stage for stage in config["stages"]}
    made: dict[str, Carriers] = {}
    for entry in config["adapters"]:
        name = entry["stage"]
        if name not in made:
            made[name] = _without_weights(stages[name], config["conditioners"], cards, known)
        for part, found in read_entry(entry, made[name], meta=True).items():
            module = made[name][part]
            weights = dict(module.named_parameters())
            merged(weights, [(found, entry["scale"])], what=f"'{entry['file']}' for {type(module).__name__}")


def _without_weights(
    stage: Mapping[str, Any], conditioners: Mapping[str, Any], cards: Mapping[str, Card], known: Registry
) -> Carriers:
    """A stage's modules on the meta device."""

    def one(kind: str, block: Mapping[str, Any]) -> Any:
        return make(kind, cards[block["weights"]].block if "weights" in block else block, known)

    denoiser = stage["denoiser"]
    with torch.device("meta"):
        network = one("network", denoiser if "weights" in denoiser else denoiser["network"])
        return carriers(network, [one("conditioner", conditioners[n]) for n in conditioners_of(stage["listens"])])
