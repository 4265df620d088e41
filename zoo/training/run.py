"""From a checked recipe to a finished run: data, objective, loop, weights and card."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo import __version__
from zoo.errors import ConfigError
from zoo.training import checkpoint, export
from zoo.training.loop import Loop, Progress, TrainSettings
from zoo.training.objective import CPU
from zoo.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the assembler lends: components and weights by their blocks."""

    component: Callable[[str, Any], Any]
    part: Callable[[str, Any], Any]
    denoiser: Callable[[Any, Mapping[str, Any]], Any]
    load_into: Callable[[Any, str], None]


@dataclass(frozen=True)
class TrainedRun:
    """Where the weights' card is, the last validation scalars, and what was skipped when resuming."""

    card: Path
    validation: Mapping[str, float]
    notes: Sequence[str]


def settings_of(recipe: Recipe) -> TrainSettings:
    """The `train:` block as settings."""
    block = dict(recipe.raw["train"])
    if "betas" in block:
        block["betas"] = tuple(block["betas"])
    return TrainSettings(**block)


def objective_of(recipe: Recipe, parts: Parts, folder: Path, device: torch.device) -> Any:
    """The objective with its data and networks; the trained one starts from the recipe's seed or `init_from`."""
    raw, settings = recipe.raw, settings_of(recipe)
    data = {k: v for k, v in raw["data"].items() if k != "split"}
    given: dict[str, Any] = {
        "train": parts.component("dataset", {**data, "split": raw["data"].get("split", "train")}),
        "validation": parts.component("dataset", {**data, "split": "val"}),
        "precision": settings.dtype,
        "device": device,
    }
    torch.manual_seed(settings.seed)
    trained = parts.component(recipe.trains, raw[recipe.trains])
    if "init_from" in raw:
        parts.load_into(trained, raw["init_from"])
    if raw["objective"]["name"] == "denoising":
        given["network"] = parts.denoiser(trained, raw)
        given["autoencoder"] = parts.part("autoencoder", raw["autoencoder"]).to(device)
        given["conditioner"] = parts.part("conditioner", raw["conditioner"]).to(device)
        given["cache"] = folder / "cache"
    else:
        given["network"] = trained
    block = dict(raw["objective"])
    return parts.component("objective", {**block, **given})


def train(
    recipe: Recipe, parts: Parts, *, folder: Path, resume: bool = False, device: torch.device = CPU,
    callback: Callable[[Progress], Any] | None = None,
) -> TrainedRun:  # fmt: skip
    """Run a recipe in `folder`; the weights and their card are in `folder/export` at the end.

    Raises ConfigError where `folder` already holds a run and `resume` is not set.
    """
    if not resume and (folder / "checkpoints").exists():
        raise ConfigError(f"'{folder}' already holds a run; go on with --resume or choose another folder with --run")
    folder.mkdir(parents=True, exist_ok=True)
    loop = Loop(objective_of(recipe, parts, folder, device), settings_of(recipe), folder, identity=recipe.identity)
    notes = loop.resume() if resume else []
    facts = {
        "recipe": recipe.raw,
        "identity": recipe.identity,
        "versions": {"zoo": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }
    checkpoint.write_atomically(folder / "run.json", json.dumps(facts, indent=1, default=str).encode())
    validation = loop.run(callback)
    return TrainedRun(
        card=write_weights(recipe, loop, folder / "export", validation), validation=validation, notes=notes
    )


def write_weights(recipe: Recipe, loop: Loop, folder: Path, validation: Mapping[str, float]) -> Path:
    """Export the averaged weights of a loop with a card; returns the card's path."""
    tensors, facts = loop.objective.export(loop.average.network)
    raw = recipe.raw
    own = {k: v for k, v in raw[recipe.trains].items() if k != "name"}
    metrics = {f"validation_{k}": round(v, 5) for k, v in validation.items()}
    card: dict[str, Any] = {
        "kind": recipe.trains,
        "component": raw[recipe.trains]["name"],
        "summary": raw.get("summary", ""),
        "config": own,
        **facts,
        "metrics": {**metrics, **facts.get("metrics", {})},
        "recipe": recipe.source.as_posix() if not recipe.source.is_absolute() else recipe.source.name,
        "provenance": {
            "steps": loop.step,
            "samples_seen": loop.step * loop.settings.batch_size,
            "training_seconds": round(loop.seconds),
            "seed": loop.settings.seed,
            "device": _device_name(loop.objective.device),
            "torch": str(torch.__version__),
        },
        **(raw.get("card") or {}),
    }
    if raw["objective"]["name"] == "denoising":
        keys = ("schedule", "parameterization", "time_input", "time_rounding")
        card["denoiser"] = {"time_input": "index", **{k: raw[k] for k in keys if k in raw}}
    return export.write(folder, recipe.name, tensors, card)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
