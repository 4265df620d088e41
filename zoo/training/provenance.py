"""A run's provenance: `run.json`, with the recipe, versions, and hashes of the data and the first weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.config.cards import read_card
from zoo.data import tar_index
from zoo.data.web_dataset import shards_of
from zoo.schema import strict_json
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.files import read_plain, sha256_of, write_atomically
from zoo.schema.version import __version__
from zoo.training.engine.distributed import Devices
from zoo.training.recipe import Recipe

LARGEST_NOTE = 16 * 2**20  # bytes of a run.json
ABSENT = object()
MOST_TOLD = 4  # differences that are written out
PACKAGES = ("torch", "numpy", "safetensors", "open_clip_torch")


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of names; the same for equal weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_of_data(source: Any) -> dict[str, Any] | None:
    """A file's SHA-256; of a folder one over the contents of its .jsonl files and the names and sizes of all.

    Of shards by a pattern one over the hashes of their headers, all splits'. None where there is no such data.
    """
    if not isinstance(source, str):
        return None
    path = Path(source)
    if not path.exists() and "{" in source:
        digest, count = hashlib.sha256(), 0
        try:
            for split in ("train", "val") if "{split}" in source else ("",):
                for shard in shards_of(source.replace("{split}", split)):
                    said = f"{shard.name} {shard.stat().st_size} {tar_index.index(shard)[1]}\n"
                    digest.update(os.fsencode(said))
                    count += 1
        except (UsageError, OSError):
            return None  # opening them reports what is wrong
        return {"sha256": digest.hexdigest(), "of": f"names, sizes and headers of {count} shards"}
    if not path.exists():
        return None
    if path.is_file():
        return {"sha256": sha256_of(path), "of": "the file"}
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        inside = sha256_of(file) if file.suffix == ".jsonl" or file.name == "metadata.csv" else ""
        digest.update(os.fsencode(f"{file.relative_to(path).as_posix()} {file.stat().st_size} {inside}\n"))
    return {"sha256": digest.hexdigest(), "of": f"names and sizes of {len(files)} files, and the contents of metadata"}


def write(
    folder: Path, recipe: Recipe, first_weights: str, devices: Devices, *, step: int,
    requested: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write `run.json`; a run that goes on from `step` adds a sitting to what is there."""
    installed: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    data = hash_of_data(recipe.raw["data"].get("path"))
    sitting = {
        "from_step": step,
        "data": data,
        "train": recipe.raw["train"],
        "versions": {"zoo": __version__, "python": platform.python_version(), **installed},
        "device": device_name(devices.device),
        **(requested or {}),
        "world": devices.world,
        "parallel": devices.parallel if devices.world > 1 else None,
    }
    path = folder / "run.json"
    before: list[Any] = []
    if step and path.exists():
        try:
            before = strict_json.parse(read_plain(path, LARGEST_NOTE)).get("sittings", [])
        except (OSError, ValueError, AttributeError, RecursionError):
            before = []  # only a note: checkpoints don't depend on it
    facts = {
        "schema": "zoo.run/1",
        "recipe": recipe.raw,
        "identity": recipe.identity,
        "versions": sitting["versions"],
        "data": data,
        "first_weights": first_weights,
        "sittings": [*before, sitting],
    }
    write_atomically(path, json.dumps(facts, indent=1, default=str).encode())
    return path


def check_data(folder: Path, recipe: Recipe) -> None:
    """ConfigError where the run in a folder was trained on other data than the recipe's."""
    source = recipe.raw["data"].get("path")
    try:
        before = strict_json.parse(read_plain(folder / "run.json", LARGEST_NOTE))["data"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # only a note: checkpoints don't depend on it
    data = hash_of_data(source)
    if data is not None and data["sha256"] != before:
        raise ConfigError(
            f"'{folder}' was trained on other data than '{source}' (its hash differs); go on with the data that it "
            "began with, or say --other-data",
            code="run-of-other-data",
        )


def check_recipe(folder: Path, recipe: Recipe) -> None:
    """ConfigError that names what differs where the run in a folder was trained by another recipe than this."""
    try:
        before = strict_json.parse(read_plain(folder / "run.json", LARGEST_NOTE))
        if before["identity"] == recipe.identity:
            return
        was = dataclasses.replace(recipe, raw=before["recipe"], name=before["recipe"]["name"])
        differ = list(_differences(was.deciding, recipe.deciding))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # only a note: the checkpoints carry an identity of their own
    if not differ:
        return
    told = "; ".join(f"{key} was {_shown(old)} and is {_shown(new)}" for key, old, new in differ[:MOST_TOLD])
    more = f"; {len(differ) - MOST_TOLD} more" if len(differ) > MOST_TOLD else ""
    again = [f"--set {shlex.quote(f'{key}={json.dumps(old)}')}" for key, old, _ in differ if old is not ABSENT]
    repeat = (
        f"repeat {' '.join(again[:MOST_TOLD])}" if len(again) == len(differ) <= MOST_TOLD else "give its own recipe"
    )
    raise ConfigError(
        f"the run in '{folder}' is another recipe's: {told}{more}; {repeat}, or choose another folder with --run",
        code="run-of-another-recipe",
    )


def _differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted paths at which two recipes differ, with both values, `ABSENT` where there is none."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            place = f"{path}.{key}" if path else str(key)
            yield from _differences(before.get(key, ABSENT), now.get(key, ABSENT), place)
    elif before != now:
        yield path, before, now


def _shown(value: Any) -> str:
    text = "absent" if value is ABSENT else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def started_from(card: str | None, fresh: Sequence[str] = ()) -> dict[str, Any]:
    """The cards' provenance of the weights named in `init_from`, without the `fresh` ones; empty without any."""
    if card is None:
        return {}
    start = read_card(card)
    own = {"name": start.name, "sha256": start.sha256, **({"but_for": list(fresh)} if fresh else {})}
    return {"started_from": {**own, **(start.raw.get("provenance") or {})}}


def device_name(device: torch.device) -> str:
    """The device, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
