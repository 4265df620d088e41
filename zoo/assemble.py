"""From a checked config to objects; the one file with every slot of a pipeline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.acceleration.accelerated import cached
from zoo.acceleration.device import requested, resolve
from zoo.acceleration.eight_bit import in_eight_bits
from zoo.acceleration.offload import Home, content, put
from zoo.checkpoints.files import OwnFile, Unfilled, load_strict, read_verified
from zoo.checkpoints.packed import unpack
from zoo.conditioners.vocabulary import restore
from zoo.conditioners.words import read_words
from zoo.config.blocks import is_block, make
from zoo.config.cards import Card, read_card
from zoo.config.check import Resolved
from zoo.config.check import resolve as resolve_config
from zoo.config.overrides import parse_overrides
from zoo.diffusion.denoiser import Denoiser
from zoo.families.lora.applied import Adapters, carriers
from zoo.pipeline.parts import Saving, dtype_of
from zoo.pipeline.pipeline import Pipeline, Stage
from zoo.pipeline.space import space_of
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.plain import show
from zoo.schema.ranges import one_of
from zoo.schema.registry import registry
from zoo.schema.unknown import unknown

if TYPE_CHECKING:
    from zoo.training.run import TrainedRun

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def component(kind: str, block: str | Mapping[str, Any]) -> Any:
    """A component block -> the component, a file of its own read; arguments named like a kind are blocks themselves."""
    made = make(kind, block, registry())
    if isinstance(made, OwnFile):
        made.read_weights()
    return made


def weights(card: Card) -> Any:
    """The component of a card with its weights, in float32: a `Denoiser` where the card is a network's."""
    made = _unread(card)
    _read(card, made)
    return made


def _bare(made: Any) -> Any:
    """A denoiser's network, or the module itself."""
    return made.network if isinstance(made, Denoiser) else made


def _unread(card: Card) -> Any:
    """The component of a card without memory for its weights, which `_read` puts in place."""
    with Unfilled():
        module = component(card.kind, card.block)
    assert isinstance(module, nn.Module)
    module.eval().requires_grad_(False)
    return denoiser(module, card.denoiser) if card.denoiser is not None else module


def _read(card: Card, made: Any, dtype: torch.dtype = torch.float32) -> None:
    """Verify a card's file against it, and put its tensors in place."""
    module = _bare(made)
    load_strict(module, _tensors(card, module), what=f"weights '{card.name}'", other=card.other, dtype=dtype)


def _tensors(card: Card, module: nn.Module) -> dict[str, Tensor]:
    """What a card's file holds, by the module's names: verified, and unpacked where it is stored in eight bits."""
    if card.source is not None:
        return card.source.tensors(module)
    tensors = read_verified(card.file, bytes=card.bytes, sha256=card.sha256)
    return unpack(tensors, what=f"weights '{card.name}'")


def denoiser(network: nn.Module, facts: Mapping[str, Any]) -> Denoiser:
    """A network with what it was trained for: schedule, parameterization, how t and a smaller image reach it."""
    reading = facts["parameterization"]
    return Denoiser(
        network=network,
        schedule=component("schedule", facts["schedule"]),
        parameterization=component("parameterization", reading) if is_block(reading) else reading,
        time_input=facts.get("time_input", "index"),
        time_rounding=facts.get("time_rounding", "nearest"),
        low_res=component("low_res", facts["low_res"]) if facts.get("low_res") else None,
        initial_scale=facts.get("initial_scale", "sigma_T"),
        variance=facts.get("variance"),
        image_condition=facts.get("image_condition"),
    )


def part(kind: str, block: Mapping[str, Any], cards: Callable[[str], Card] = read_card) -> Any:
    """The component in a slot of a stage: weights by their card, or a component with fresh weights."""
    if "weights" in block:
        return weights(_card_of(kind, block, cards))
    made = _fresh(kind, block)
    if isinstance(made, OwnFile):
        made.read_weights()
    return made


def _card_of(kind: str, block: Mapping[str, Any], cards: Callable[[str], Card]) -> Card:
    card = cards(block["weights"])
    if card.kind != kind:
        raise ConfigError(
            f"the weights '{card.name}' are of kind '{card.kind}' where a {kind} is needed", code="weights-kind-wrong"
        )
    return card


def _fresh(kind: str, block: Mapping[str, Any]) -> Any:
    """A component without a card; a file that it names (`OwnFile`) isn't read yet."""
    if kind == "network":
        made = denoiser(component("network", block["network"]), block)
    else:
        made = make(kind, block, registry())
    return made.eval().requires_grad_(False) if isinstance(made, nn.Module) else made


class _Parts:
    """Each weight file is read once, however many slots name it, and after all else is made (`read`).

    `cards` are those of a checked config.
    """

    def __init__(self, cards: Mapping[str, Card]) -> None:
        self.cards = cards
        self.made: dict[str, Any] = {}
        self.own: list[OwnFile] = []
        self.hashes: dict[str, str] = {}  # of what was read

    def get(self, kind: str, block: str | Mapping[str, Any]) -> Any:
        block = {"name": block} if isinstance(block, str) else block
        if "weights" not in block:
            fresh = _fresh(kind, block)
            if isinstance(fresh, OwnFile):
                self.own.append(fresh)
            return fresh
        name = block["weights"]
        if name not in self.made:
            card = _card_of(kind, block, self.cards.__getitem__)
            self.made[name] = made = _unread(card)
            if card.words is not None and hasattr(made, "words"):
                made.words = read_words(card.words)
        return self.made[name]

    def read(self) -> None:
        """Read the weight files of all that was made."""
        for name, made in self.made.items():
            self.hashes[name] = self.cards[name].sha256  # of a published file it takes seconds
            _read(self.cards[name], made)
        for fresh in self.own:
            self.hashes |= fresh.read_weights()

    def homes(self, eight_bits: Any, adapters: Adapters) -> dict[nn.Module, Home]:
        """How each module's weights are read again, as they are now, with the LoRAs that it has then."""

        def read(card: Card, like: nn.Module) -> Mapping[str, Tensor]:
            made = _unread(card)
            if adapters.change(like):
                _read(card, made)
                put(_bare(made), adapters.merged_into(like, dict(_bare(made).named_parameters())))
                made.to(dtype_of(like))
            else:
                _read(card, made, dtype_of(like))
            if eight_bits is not None and card.kind in ("network", "conditioner"):
                in_eight_bits(_bare(made), eight_bits)
            return content(_bare(made))

        bare = {name: _bare(made) for name, made in self.made.items()}
        return {module: partial(read, self.cards[name], module) for name, module in bare.items()}

    def guidance(self, block: str | Mapping[str, Any]) -> Any:
        """A guidance block, whose arguments may be weights of a network (a classifier) or another guidance.

        An argument called `denoiser` gets the network with its schedule and parameterization, any other the bare one.
        """
        named: dict[str, Any] = {"name": block} if isinstance(block, str) else dict(block)
        for key, value in named.items():
            if key == "guidance":
                named[key] = self.guidance(value)
            if isinstance(value, Mapping) and "weights" in value:
                made = self.get("network", value)
                named[key] = made.network if isinstance(made, Denoiser) and key != "denoiser" else made
        return component("guidance", named)


def _small_size(card: Card | None) -> int | None:
    """Pixels a side of the smaller image that a card says its network enlarges."""
    small = None if card is None else card.contract.get("low_res")
    return small if isinstance(small, int) and not isinstance(small, bool) else None


def _listens(said: Any) -> tuple[str, ...] | dict[str, Any]:
    return dict(said) if isinstance(said, Mapping) else tuple(said or ())


def assemble(
    resolved: Resolved, *, device: Any = None, dtype: Any = None, memory: Mapping[str, Any] | None = None,
    before_weights: Callable[[Pipeline], object] | None = None,
) -> Pipeline:  # fmt: skip
    """A resolved config -> a pipeline, in `dtype` (float32). Only weight files are read, and those last.

    `device` is the CPU by default; `auto` is the best available, and the record notes that it was chosen so. Both may
    differ by part: a mapping, or as text "float16,autoencoder=float32". `memory` is what `Pipeline.save_memory` takes.
    `before_weights` gets the pipeline while no weight is read; what it raises is raised here.
    """
    named, kinds = _by_part(device), _by_part(dtype)
    place = _each(named, resolve)
    precision = _each({"rest": None, **kinds} if isinstance(kinds, Mapping) else kinds, _dtype)
    saving = _saving(memory)
    config, parts = resolved.config, _Parts(resolved.cards)
    conditioners = {name: parts.get("conditioner", block) for name, block in (config.get("conditioners") or {}).items()}
    if (prompts := config.get("prompts")) is not None:
        for made in conditioners.values():
            if hasattr(made, "read_prompts"):
                made.read_prompts(**prompts)
    stages = []
    for number, block in enumerate(config["stages"]):
        interval = block.get("interval") or (1.0, 0.0)
        if block.get("feeds") == "embedding":
            raise ConfigError(
                f"stage '{block.get('name', number)}' feeds an embedding, and no network of this version listens to "
                "that yet; feed an image, a latent or low_res",
                code="condition-unread",
            )
        network = parts.get("network", block["denoiser"])
        if block.get("step_cache"):
            network = cached(network, component("step_cache", block["step_cache"]))
        stages.append(
            Stage(
                name=block.get("name", f"stage {number}"),
                denoiser=network,
                autoencoder=parts.get("autoencoder", block.get("autoencoder") or registry().default("autoencoder")),
                sampler=component("sampler", block["sampler"]),
                guidance=tuple(parts.guidance(g) for g in block.get("guidance") or ()),
                listens=_listens(block.get("listens")),
                takes=block.get("takes", "noise"),
                feeds=block.get("feeds", "image"),
                space=space_of(block),
                interval=(float(interval[0]), float(interval[1])),
                small_size=_small_size(resolved.cards.get(block["denoiser"].get("weights"))),
                augmentation=block.get("augmentation"),
            )
        )
    safety = config.get("safety")
    record = {**_said(config), "weights": parts.hashes, **requested(device)}

    def resampled(sampler: str | Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The changes to the record, and each stage's sampler, where a request names another; checked as a config."""
        other = resolve_config(record["config"], None, {"sampler": sampler}).config
        made = {stage["name"]: component("sampler", stage["sampler"]) for stage in other["stages"]}
        return _said(other), made

    def adapted(entries: list[dict[str, Any]]) -> None:
        plain = {key: value for key, value in record["config"].items() if key != "adapters"}
        record.update(_said({**plain, **({"adapters": entries} if entries else {})}))

    pipeline = Pipeline(
        conditioners=conditioners,
        stages=stages,
        safety=None if safety is None else parts.get("safety", safety),
        record=record,
        resampled=resampled,
        adapters=Adapters(
            {s.name: carriers(s.denoiser.network, (conditioners[n] for n in s.conditioners)) for s in stages}, adapted
        ),
    )
    if before_weights is not None:
        before_weights(pipeline)
    for said in (place, precision):
        pipeline.parts.check(said)
    if saving is not None and saving.offload and isinstance(place, Mapping):
        raise UsageError(
            "parts that are offloaded take turns on one device; give one, or leave offload out", code="option-conflict"
        )
    parts.read()
    if config.get("adapters"):
        pipeline.adapters.set(config["adapters"])  # from the weights as they were stored, before they are rounded
    if saving is None:
        return pipeline.to(place, precision)
    pipeline.to(dtype=precision)
    pipeline.parts.homes = parts.homes(saving.weights, pipeline.adapters)
    pipeline.save_memory(**saving.record(), device=place if saving.offload else None)  # type: ignore[arg-type]
    return pipeline if saving.offload else pipeline.to(place)


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in the form that a record holds."""
    text = json.dumps(config, sort_keys=True)
    return {"config": config, "config_sha256": hashlib.sha256(text.encode()).hexdigest()}


def _saving(memory: Mapping[str, Any] | None) -> Saving | None:
    known = [field.name for field in fields(Saving)]
    if memory is not None and not isinstance(memory, Mapping):
        raise UsageError(f"memory is {show(memory)}; give a mapping of {', '.join(known)}", code="argument-type-wrong")
    for key in memory or ():
        if key not in known:
            raise UsageError(unknown("way to save memory", str(key), known), code="choice-unknown")
    return Saving(**memory) if memory else None


def _by_part(said: Any) -> Any:
    """`float16,autoencoder=float32` as a mapping of parts; anything else as it is."""
    if not isinstance(said, str) or "=" not in said:
        return said
    pairs = [("rest", entry) if "=" not in entry else tuple(entry.split("=", 1)) for entry in said.split(",")]
    return {part.strip(): value.strip() for part, value in pairs}


def _each(said: Any, read: Callable[[Any], Any]) -> Any:
    return {part: read(one) for part, one in said.items()} if isinstance(said, Mapping) else read(said)


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype in (*DTYPES.values(), torch.float64):
        return dtype
    one_of("dtype", dtype, (None, *DTYPES))
    return DTYPES[str(dtype or "float32")]


def load(name: str, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> Any:
    """The component of a weight card with its weights."""
    return weights(read_card(name)).to(device=resolve(device), dtype=_dtype(dtype))


def load_into(module: nn.Module, name: str, fresh: Sequence[str] = ()) -> None:
    """Put a card's tensors into a network that is about to be trained further (`init_from` of a recipe).

    Those whose names begin with one of `fresh` (`init_fresh`) stay as the module has them, of whatever shape, or are
    left out where it has none. Of those, parts that can `begin_as_identity` (a transformer's further blocks) do, so
    that a deeper network first computes what the weights did.
    """
    card = read_card(name)
    tensors = _tensors(card, module)
    wanted = module.state_dict()
    added: list[Any] = [
        block
        for part, block in module.named_modules()
        if hasattr(block, "begin_as_identity") and f"{part}.".startswith(tuple(fresh))
    ]
    for prefix in fresh:
        own = {key: tensor for key, tensor in wanted.items() if key.startswith(prefix)}
        if not own and not any(key.startswith(prefix) for key in tensors):
            raise ConfigError(
                f"init_fresh names '{prefix}', which begins no tensor's name; take it out", code="init-fresh-unmatched"
            )
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)} | own
    if "token_ids" in tensors and "token_ids" not in wanted:  # a CLIP's compact vocabulary, and it is trained whole
        ids = tensors.pop("token_ids")
        tensors["token_embedding.weight"] = restore(tensors["token_embedding.weight"], ids)
    other = [prefix for prefix in card.other if not any(key.startswith(prefix) for key in wanted)]
    load_strict(module, tensors, what=f"init_from '{name}'", other=other)
    for block in added:
        block.begin_as_identity()
    module.requires_grad_(True)


def train(
    recipe: Path,
    *,
    folder: Path | None,
    resume: bool,
    other_data: bool = False,
    seconds: float | None = None,
    overrides: Any,
    device: Any,
    callback: Callable[[Any], Any] | None,
) -> TrainedRun:
    """Check a recipe and run it."""
    if seconds is not None:
        overrides = {**parse_overrides(overrides), "train.seconds": float(seconds)}
    # Its imports bring torch's compiler, which takes a second that drawing doesn't need.
    from zoo.training.recipe import read_recipe
    from zoo.training.run import Parts
    from zoo.training.run import train as run_recipe

    checked = read_recipe(recipe, registry(), overrides)
    parts = Parts(component=component, part=part, denoiser=denoiser, load_into=load_into)
    place = folder or Path("runs") / checked.name
    return run_recipe(
        checked, parts, folder=place, resume=resume, other_data=other_data, device=resolve(device),
        device_requested=requested(device), callback=callback,
    )  # fmt: skip
