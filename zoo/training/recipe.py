"""Recipes: everything a training run depends on, as YAML with registry keys.

```yaml
schema: zoo.recipe/1
name: emoji-latent-64            # also the name of the weights it makes
data: {name: image-folder, path: data/emoji-core-128.zip, size: 64}
objective: {name: denoising, min_snr: 5.0}
network: {name: unet, ...}       # what is trained; `autoencoder:` where the objective trains one
autoencoder: {weights: emoji-kl-f4}      # what stays as it is
conditioner: {weights: emoji-base-32-text}
train: {steps: 4000, batch_size: 128, ...}
```

Checking reads signatures from source; nothing heavy is imported and no data is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.config.blocks import check_arguments, check_block, check_fit
from zoo.config.cards import check_schema, read_card
from zoo.config.overrides import Overrides, apply_overrides
from zoo.schema.errors import ConfigError
from zoo.schema.registry import Registry
from zoo.schema.safe_yaml import read_mapping
from zoo.schema.signature import read_signature
from zoo.schema.unknown import unknown

SCHEMA = "zoo.recipe/1"
KEYS = (
    "schema", "name", "summary", "data", "objective", "network", "autoencoder", "conditioner", "schedule",
    "parameterization", "time_input", "time_rounding", "low_res", "init_from", "init_fresh", "adapter", "storage",
    "variants", "train", "card", "loggers",
)  # fmt: skip
# The slots that an objective may read; it declares which of them it reads, trains and needs.
SLOTS = (
    "network", "autoencoder", "conditioner", "schedule", "parameterization", "time_input", "time_rounding", "low_res",
)  # fmt: skip
# What the run itself gives an objective.
GIVEN = ("network", "train", "validation", "autoencoder", "conditioner", "cache", "precision", "device")
STORAGE = ("float16", "int8")  # how the weights are written at the end
LONGEST_NAME = 200  # bytes: file names have some more, and at most 255
SETTINGS = "zoo.training.engine.settings:TrainSettings"
ADAPTER = "zoo.families.lora.train:AdapterSettings"
VARIANTS = "zoo.data.variants:Variants"


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    `raw` is its content with overrides applied, `source` the file it came from, `facts` what its objective declares.
    """

    name: str
    raw: Mapping[str, Any]
    source: Path
    facts: Mapping[str, Any]

    @property
    def trains(self) -> str:
        """The block that is trained: network or autoencoder."""
        return trains_of(self.facts)

    @property
    def tells_time(self) -> bool:
        """Whether what is trained takes x_t of a schedule, and so is passed as a denoiser."""
        return "schedule" in (self.facts.get("reads") or ())

    @property
    def reading(self) -> dict[str, Any]:
        """The contract of the trained weights: schedule, parameterization, time input, as far as given."""
        reads = [key for key in self.facts.get("reads") or () if key not in ("autoencoder", "conditioner")]
        return {"time_input": "index", **{key: self.raw[key] for key in reads if key in self.raw}}

    @property
    def deciding(self) -> dict[str, Any]:
        """Everything that decides the weights but the length of the run."""
        train = {k: v for k, v in self.raw["train"].items() if k in ("batch_size", "seed", "average", "betas")}
        data = {k: v for k, v in self.raw["data"].items() if k != "path"}
        parts = {
            k: v for k, v in self.raw.items() if k not in ("summary", "card", "train", "data", "storage", "loggers")
        }
        return json.loads(json.dumps({**parts, "train": train, "data": data}, sort_keys=True))

    @property
    def identity(self) -> str:
        """A hash of what is `deciding`; checkpoints carry it."""
        text = json.dumps(self.deciding, sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_recipe(path: Path, registry: Registry, overrides: Overrides = None) -> Recipe:
    """Read and check; ConfigError names the key and the fix."""
    raw = read_mapping(path)
    check_schema(raw, SCHEMA, str(path))
    raw = apply_overrides(raw, overrides, registry)
    where = f"recipe '{path.name}'"
    for key in raw:
        if key not in KEYS:
            raise ConfigError(f"{where}: {unknown('key', key, KEYS)}", code="recipe-key-unknown")
    if "adapter" in raw and "init_from" in raw:
        raw = {**_of_card(raw["init_from"], where), **raw}
    for key in ("name", "data", "objective", "train"):
        if key not in raw:
            raise ConfigError(f"{where} lacks '{key}'; add it", code="recipe-key-missing")
    name = raw["name"]
    if not isinstance(name, str) or not re.fullmatch(r"[^\W_][\w.+-]*", name) or len(name.encode()) > LONGEST_NAME:
        said = f"{where} has the name {str(name)[:60]!r}"
        raise ConfigError(
            f"{said}; give a plain word of at most {LONGEST_NAME} bytes: it names files", code="name-invalid"
        )
    checked = dict(raw)
    checked["data"] = check_block(raw["data"], kind="dataset", where=f"{where}, data", registry=registry)
    checked["objective"] = _check_objective(raw["objective"], where, registry)
    if "variants" in raw:
        checked["variants"] = _check_variants(raw["variants"], where, registry)
    facts = registry.entry("objective", checked["objective"]["name"]).signature().constants
    trains = trains_of(facts)
    if trains not in raw:
        raise ConfigError(
            f"{where} lacks the block '{trains}', which its objective trains; add it", code="recipe-block-missing"
        )
    _check_blocks(raw, checked["objective"]["name"], facts, where)
    for kind in ("network", "autoencoder", "conditioner", "schedule", "parameterization", "low_res"):
        if kind in raw:
            checked[kind] = _check_part(raw[kind], kind, f"{where}, {kind}", registry, trained=kind == trains)
    _check_start(raw, where)
    if "adapter" in raw:
        checked["adapter"] = _check_adapter(raw, facts, where, registry)
    if not isinstance(raw.get("card") or {}, Mapping):
        raise ConfigError(
            f"{where}: card is {raw['card']!r}; give a block, what the weights' card says besides",
            code="recipe-value-invalid",
        )
    if not isinstance(raw.get("summary", ""), str):
        raise ConfigError(f"{where}: summary is {raw['summary']!r}; give a sentence", code="recipe-value-invalid")
    if "loggers" in raw:
        if not isinstance(raw["loggers"], list):
            raise ConfigError(
                f"{where}: loggers is {raw['loggers']!r}; give a list, like [tensorboard], or []",
                code="recipe-value-invalid",
            )
        checked["loggers"] = [
            check_block(block, kind="logger", where=f"{where}, loggers", registry=registry) for block in raw["loggers"]
        ]
    if not isinstance(raw["train"], Mapping):
        raise ConfigError(
            f"{where}: train is {raw['train']!r}; give a block with steps and batch_size", code="recipe-value-invalid"
        )
    settings = read_signature(SETTINGS)
    checked["train"] = check_arguments(
        raw["train"], settings, what="training", where=f"{where}, train", registry=registry
    )
    return Recipe(name=raw["name"], raw=checked, source=path, facts=facts)


def trains_of(facts: Mapping[str, Any]) -> str:
    """The block that an objective of these facts trains."""
    return str(facts.get("trains", "network"))


def _check_blocks(raw: Mapping[str, Any], objective: str, facts: Mapping[str, Any], where: str) -> None:
    """ConfigError for a block that the objective lacks, or has no use for."""
    for name in facts.get("needs") or ():
        if name not in raw:
            raise ConfigError(
                f"{where} lacks the block '{name}', which objective '{objective}' needs; add it",
                code="recipe-block-missing",
            )
    reads = facts.get("reads")
    used = SLOTS if reads is None else (*reads, trains_of(facts))  # one that declares nothing is not checked
    for name in SLOTS:
        if name in raw and name not in used:
            raise ConfigError(
                f"{where}: objective '{objective}' doesn't read the block '{name}'; take it out",
                code="recipe-block-unread",
            )


def _check_start(raw: Mapping[str, Any], where: str) -> None:
    """ConfigError for an invalid `init_fresh` or `storage`."""
    fresh = raw.get("init_fresh", [])
    if not isinstance(fresh, list) or not all(isinstance(f, str) and f for f in fresh):
        raise ConfigError(
            f"{where}: init_fresh is {fresh!r}; give a list of the beginnings of tensor names",
            code="recipe-value-invalid",
        )
    if fresh and "init_from" not in raw:
        raise ConfigError(
            f"{where}: init_fresh says what of init_from not to take, and there is none; take it out",
            code="init-fresh-unmatched",
        )
    if raw.get("storage", STORAGE[0]) not in STORAGE:
        raise ConfigError(f"{where}: {unknown('storage', raw['storage'], STORAGE)}", code="recipe-value-unknown")


def _of_card(name: Any, where: str) -> dict[str, Any]:
    """The blocks of the denoiser whose weights a card describes, for an adapter beside them."""
    card = read_card(name)
    if card.denoiser is None:
        raise ConfigError(
            f"{where}: an adapter is trained beside a denoiser's weights, and '{card.name}' are a {card.kind}'s; name "
            "others in init_from",
            code="weights-kind-wrong",
        )
    return {"network": card.block, **{key: value for key, value in card.denoiser.items() if key in SLOTS}}


def _check_adapter(raw: Mapping[str, Any], facts: Mapping[str, Any], where: str, registry: Registry) -> dict[str, Any]:
    """The block `adapter`: of a denoiser's LoRA, beside weights that stay as they are."""
    block = raw["adapter"]
    if not isinstance(block, Mapping):
        raise ConfigError(f"{where}: adapter is {block!r}; give a block, like {{rank: 8}}", code="recipe-value-invalid")
    checked = check_arguments(
        block, read_signature(ADAPTER), what="an adapter", where=f"{where}, adapter", registry=registry
    )
    rank, alpha = checked.get("rank", 1), checked.get("alpha")
    if rank < 1 or not (alpha is None or 0.0 < alpha < math.inf):
        raise ConfigError(
            f"{where}: an adapter of rank {rank} and alpha {alpha} changes nothing; give a rank from 1, and an alpha "
            "over 0 or none",
            code="number-out-of-range",
        )
    if "init_from" not in raw or "schedule" not in (facts.get("reads") or ()):
        raise ConfigError(
            f"{where}: an adapter is trained beside a denoiser's weights, and this recipe "
            + ("names none; add init_from" if "init_from" not in raw else "trains no denoiser; take it out"),
            code="recipe-block-missing",
        )
    more = {
        "init_fresh": raw.get("init_fresh"), "storage": raw.get("storage", STORAGE[0]) != STORAGE[0],
        "objective.train_conditioner": isinstance(raw["objective"], Mapping)
        and raw["objective"].get("train_conditioner"),
        "train.parallel": isinstance(raw["train"], Mapping) and raw["train"].get("parallel", "ddp") != "ddp",
    }  # fmt: skip
    odd = next((name for name, given in more.items() if given), None)
    if odd is not None:
        raise ConfigError(
            f"{where}: {odd} is for whole weights, and only the adapter's are trained; take one of them out",
            code="recipe-block-unread",
        )
    return checked


def _check_part(block: Any, kind: str, where: str, registry: Registry, *, trained: bool) -> dict[str, Any]:
    if isinstance(block, Mapping) and "weights" in block:
        if trained:
            raise ConfigError(
                f"{where}: this block is what is trained; describe it, and name its start in init_from",
                code="recipe-value-invalid",
            )
        card = read_card(block["weights"])
        if card.kind != kind:
            raise ConfigError(
                f"{where}: the weights '{card.name}' are of kind '{card.kind}'; name weights of a {kind}",
                code="weights-kind-wrong",
            )
        return dict(block)
    return check_block(block, kind=kind, where=where, registry=registry)


def _check_variants(block: Any, where: str, registry: Registry) -> dict[str, Any]:
    """The block `variants`, but for the data that the run gives."""
    if not isinstance(block, Mapping):
        raise ConfigError(f"{where}: variants is {block!r}; give a block with a count", code="recipe-value-invalid")
    signature = read_signature(VARIANTS)
    own = tuple(p for p in signature.parameters if p.name != "data")
    return check_arguments(
        block, dataclasses.replace(signature, parameters=own), what="variants", where=f"{where}, variants",
        registry=registry,
    )  # fmt: skip


def _check_objective(block: Any, where: str, registry: Registry) -> dict[str, Any]:
    """Check a block, without the arguments that the run itself gives."""
    named = {"name": block} if isinstance(block, str) else block
    if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
        raise ConfigError(f"{where}: objective is {block!r}; give a block with a name", code="recipe-value-invalid")
    signature = registry.entry("objective", named["name"]).signature()
    own = tuple(p for p in signature.parameters if p.name not in GIVEN)
    arguments = {k: v for k, v in named.items() if k != "name"}
    what, place = f"objective '{named['name']}'", f"{where}, objective"
    signature = dataclasses.replace(signature, parameters=own)
    checked = check_arguments(arguments, signature, what=what, where=place, registry=registry)
    check_fit(checked, signature, what=what, where=place)
    return {"name": named["name"], **checked}
