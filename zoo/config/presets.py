"""Pipelines as written: finding them, reading them, and what their keys mean.

A pipeline is named conditioners and a list of stages (docs/architecture). A preset is a YAML file in zoo/presets and
its name the file's; a user's own is a path or a mapping of the same form.
`check_preset` refuses unknown keys and writes every default and block out in full.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.config.adapters import check_adapters
from zoo.config.arrays import check_extent, check_values, samples_themselves
from zoo.config.blocks import check_block
from zoo.config.cards import Cards, check_denoiser, check_schema
from zoo.config.conditions import check_listens
from zoo.config.models import model_names
from zoo.config.overrides import check_form
from zoo.config.prompts import check_prompts
from zoo.config.published import read_published
from zoo.config.sampling import refuse_noise
from zoo.config.sources import SUFFIXES as MODELS
from zoo.schema.errors import ConfigError
from zoo.schema.plain import show
from zoo.schema.registry import Registry
from zoo.schema.safe_yaml import read_mapping
from zoo.schema.unknown import unknown

PIPELINE_SCHEMA = "zoo.pipeline/1"
FOLDER = Path(__file__).resolve().parent.parent / "presets"
KEYS = ("schema", "name", "summary", "conditioners", "prompts", "stages", "safety", "adapters", "published")
STAGE_KEYS = (
    "name", "takes", "feeds", "listens", "size", "interval", "denoiser", "autoencoder", "guidance", "sampler",
    "augmentation", "step_cache", "values",
)  # fmt: skip
TAKES = ("noise", "latent", "image")
FEEDS = ("image", "latent", "low_res", "embedding", "array")
LARGEST_SIDE = 2**14  # pixels
SUFFIXES = (".yaml", ".yml", ".json")
DRAWN = (".png", ".npy")  # zoo's own samples, whose record has the config
# A digit in front would be read as a stage's index in `stages.0.sampler.steps`.
_STAGE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def preset_names() -> list[str]:
    """The names of the shipped pipelines."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_preset(config: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """A pipeline's mapping as written and its name in errors: by preset name, by path, or given as a mapping."""
    if isinstance(config, Mapping):
        source = "the config"
        written: Mapping[str, Any] = config
        name = str(config.get("name") or "config")
    elif isinstance(config, (str, Path)):
        path = _find(config)
        source, name = str(path), path.stem
        drawn = path.suffix.lower() in DRAWN
        written = _recorded(path) if drawn else _beside(read_mapping(path), path.parent)
    else:
        raise ConfigError(
            f"a config is a name, a Path or a mapping, not {type(config).__name__}", code="config-type-wrong"
        )
    check_schema(written, PIPELINE_SCHEMA, source)
    return {"name": name, **written}, source


def weights_of(config: Mapping[str, Any]) -> list[str]:
    """The weights that a pipeline names, each once, wherever: conditioners, stages, a classifier within a guidance."""
    return list(dict.fromkeys(_named({key: config.get(key) for key in ("conditioners", "stages", "safety")})))


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("weights"), str):
            yield value["weights"]
        for inner in value.values():
            yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def _beside(value: Any, folder: Path) -> Any:
    """A copy of what a file holds, its weights' relative paths from the file's folder: it means the same anywhere.

    Those that exist from the current folder alone are left: before, that was what a path began in.
    """
    if isinstance(value, Mapping):
        copied = {key: _beside(inner, folder) for key, inner in value.items()}
        if isinstance(name := value.get("weights"), str):
            copied["weights"] = _from(folder, name)
        return copied
    return [_beside(inner, folder) for inner in value] if isinstance(value, list) else value


def _from(folder: Path, name: str) -> str:
    """The name of weights as a file in `folder` means it: a card's as it is, a path as it is read from here."""
    path, mark, part = name.partition("#")
    try:
        here, there = Path(path).expanduser(), folder / path
        if here.is_absolute():
            return name
        if not path.endswith((".yaml", ".yml", *MODELS)):  # a card, or a folder's part
            taken = "/" in path and there.is_dir() and not here.exists()
        else:
            taken = there.exists() or not here.exists()
    except (OSError, ValueError, RuntimeError):  # no name of a file, or a folder closed to us: whoever opens it says so
        return name
    return os.path.normpath(there).replace(os.sep, "/") + mark + part if taken else name


def presets_with(weights: str) -> list[str]:
    """The shipped pipelines that draw with some weights."""
    return [name for name in preset_names() if weights in weights_of(read_preset(name)[0])]


def _recorded(path: Path) -> Mapping[str, Any]:
    """The config in the record of a sample that zoo drew."""
    from zoo.records.reading import check_whole, read_record

    return check_whole(read_record(path), source=str(path))["config"]


def _find(config: str | Path) -> Path:
    if isinstance(config, Path) or config.lower().endswith((*SUFFIXES, *DRAWN)):
        return Path(config)
    names = preset_names()
    if config not in names:
        raise ConfigError(
            unknown("pipeline", config, [*names, *model_names()])
            + "; for a file of your own give a path ending in .yaml",
            code="pipeline-unknown",
        )
    return FOLDER / f"{config}.yaml"


def check_preset(config: Mapping[str, Any], registry: Registry, cards: Cards) -> dict[str, Any]:
    """The pipeline with every key known, every block checked and every default written out."""
    check_form(config)
    _check_keys(config, KEYS, "a pipeline")
    conditioners = config.get("conditioners") or {}
    if not isinstance(conditioners, Mapping):
        raise ConfigError(
            f"conditioners is {show(conditioners)}; write one `name: block` line each", code="config-value-invalid"
        )
    safety = config.get("safety")
    read_published(config.get("published"), "a pipeline")  # checked here, and not built
    checked: dict[str, Any] = {
        "schema": config["schema"],
        "name": _text(config.get("name"), "name"),
        "summary": _text(config.get("summary"), "summary"),
        "conditioners": {
            name: check_slot(block, kind="conditioner", where=f"conditioners.{name}", registry=registry, cards=cards)
            for name, block in conditioners.items()
        },
        **check_prompts(config.get("prompts")),
    }
    checked["stages"] = [
        check_stage(stage, index, list(conditioners), registry, cards) for index, stage in enumerate(config["stages"])
    ]
    names = [stage["name"] for stage in checked["stages"]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two stages are called '{twice}'; rename one", code="entries-repeated")
    checked["safety"] = safety and check_slot(safety, kind="safety", where="safety", registry=registry, cards=cards)
    if config.get("adapters"):
        checked["adapters"] = check_adapters(config["adapters"], names)
    return checked


def check_stage(
    stage: Mapping[str, Any], index: int, conditioners: list[str], registry: Registry, cards: Cards
) -> dict[str, Any]:
    """A stage with every default written out."""
    where = f"stages.{index}"
    _check_keys(stage, STAGE_KEYS, where)
    name = stage.get("name", f"stage{index}")
    if not isinstance(name, str) or not _STAGE_NAME.fullmatch(name):
        raise ConfigError(
            f"{where}.name is {show(name)}; use letters, digits, '-' and '_', not a digit first",
            code="stage-name-invalid",
        )
    listens = check_listens(stage.get("listens") or [], conditioners, f"{where}.listens")
    guidance = stage.get("guidance") or []
    guidance = guidance if isinstance(guidance, list) else [guidance]
    for slot in ("denoiser", "sampler", "size"):
        if stage.get(slot) is None:
            raise ConfigError(f"{where} ('{name}') has no {slot}; add it", code="config-key-missing")
    refuse_noise(stage["sampler"], f"{where}.sampler", registry)
    feeds = _choose(stage.get("feeds", "image"), FEEDS, f"{where}.feeds")
    denoiser = check_slot(stage["denoiser"], kind="denoiser", where=f"{where}.denoiser", registry=registry, cards=cards)
    array = feeds == "array"
    if not array and stage.get("values") is not None:
        raise ConfigError(
            f"{where}.values: pictures have fixed values; values goes with feeds: array, take it out",
            code="values-range-conflict",
        )
    return {
        "name": name,
        "takes": _choose(stage.get("takes", "noise"), TAKES, f"{where}.takes"),
        "feeds": feeds,
        "listens": listens,
        "size": (check_extent if array else _check_size)(stage["size"], f"{where}.size"),
        "interval": _check_interval(stage.get("interval") or [1.0, 0.0], f"{where}.interval"),
        "denoiser": denoiser,
        "autoencoder": check_slot(
            stage.get("autoencoder")
            or (samples_themselves(denoiser, registry, cards) if array else registry.default("autoencoder")),
            kind="autoencoder", where=f"{where}.autoencoder", registry=registry, cards=cards,
        ),
        "guidance": [
            check_block(block, kind="guidance", where=f"{where}.guidance.{i}", registry=registry)
            for i, block in enumerate(guidance)
        ],
        "sampler": check_block(stage["sampler"], kind="sampler", where=f"{where}.sampler", registry=registry),
        # The level to which a super-resolution stage's small image is noised; only where one is given.
        **_check_augmentation(stage.get("augmentation"), f"{where}.augmentation"),
        **_check_step_cache(stage.get("step_cache"), f"{where}.step_cache", registry),
        **({"values": check_values(stage.get("values"), denoiser, f"{where}.values", cards)} if array else {}),
    }  # fmt: skip


def check_slot(block: Any, *, kind: str, where: str, registry: Registry, cards: Cards) -> dict[str, Any]:
    """A slot that weights can fill: `{weights: CARD}`, or a block.

    A denoiser without weights is `{network: block, schedule: block, parameterization: block, ...}`.
    """
    if not isinstance(block, Mapping) or "weights" not in block:
        if kind != "denoiser":
            return check_block(block, kind=kind, where=where, registry=registry)
        if not isinstance(block, Mapping):
            raise ConfigError(
                f"{where} is {show(block)}; write {{weights: NAME}}, see `zoo list weights`",
                code="config-value-invalid",
            )
        return check_denoiser(block, where=where, registry=registry)
    extra = next((key for key in block if key != "weights"), None)
    if extra is not None:
        raise ConfigError(
            f"{where}: '{extra}' can't stand beside weights, whose card says it; take one of them out",
            code="card-key-conflict",
        )
    try:
        card = cards(block["weights"])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", code=error.code) from error
    needed = "network" if kind == "denoiser" else kind
    if card.kind != needed:
        raise ConfigError(
            f"{where}: the weights '{card.name}' are of kind '{card.kind}' where '{needed}' is needed; "
            "see `zoo list weights`",
            code="weights-kind-wrong",
        )
    if kind == "denoiser" and card.denoiser is None:
        raise ConfigError(
            f"{where}: the weights '{card.name}' are a network that denoises nothing (its card has no denoiser); "
            "name others, see `zoo list weights`",
            code="weights-kind-wrong",
        )
    return {"weights": block["weights"]}


def _check_keys(block: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in block:
        if key not in known:
            raise ConfigError(f"{where}: {unknown('key', key, known)}", code="config-key-unknown")


def _choose(value: Any, choices: tuple[str, ...], where: str) -> str:
    if value not in choices:
        raise ConfigError(f"{where}: {unknown('value', value, choices)}", code="config-value-unknown")
    return value


def _text(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where} is {show(value)}; write text, in quotes", code="config-value-invalid")
    return value or ""


def _check_size(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_SIDE:
        lengths = " (lengths of axes go with feeds: array)" if isinstance(value, list) else ""
        raise ConfigError(
            f"{where} is {show(value)}; write pixels a side, from 1 to {LARGEST_SIDE}" + lengths, code="size-invalid"
        )
    return value


def _check_augmentation(value: Any, where: str) -> dict[str, float]:
    if value is None:
        return {}
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise ConfigError(
            f"{where} is {show(value)}; write a noise level from 0 (none) to 1", code="augmentation-out-of-range"
        )
    return {"augmentation": float(value)}


def _check_step_cache(block: Any, where: str, registry: Registry) -> dict[str, Any]:
    if block is None:
        return {}
    return {"step_cache": check_block(block, kind="step_cache", where=where, registry=registry)}


def _check_interval(value: Any, where: str) -> list[float]:
    numbers = isinstance(value, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    if not numbers or len(value) != 2 or not 0.0 <= value[1] < value[0] <= 1.0:
        raise ConfigError(
            f"{where} is {show(value)}; write [high, low] with 0 <= low < high <= 1", code="interval-invalid"
        )
    return [float(v) for v in value]
