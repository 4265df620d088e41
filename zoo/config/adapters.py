"""`adapters:` of a pipeline: LoRA files, each with its scale, and the stage whose weights it changes.

    adapters:
      - style.safetensors:0.8
      - {file: detail.safetensors, scale: 0.5, stage: base}

Here is what a config says, and whether the files are the ones that are meant. Whether they fit the networks is told by
their headers, in `zoo.families.lora.applied`, without a weight of the pipeline's being read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.config.cards import Cards
from zoo.schema.errors import ConfigError, WeightsError
from zoo.schema.files import sha256_of
from zoo.schema.plain import show
from zoo.schema.registry import Registry
from zoo.schema.safe_yaml import read_mapping
from zoo.schema.unknown import unknown

KEYS = ("file", "scale", "stage", "sha256")
LARGEST_SCALE = 100.0  # either sign; those in use are some units
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
CARD_SCHEMA = "zoo.lora/1"  # of the card that zoo's training writes beside a LoRA
SETTINGS = "adapter_config.json"  # in which PEFT keeps what its tensors don't say
# Of a folder: what PEFT and diffusers call the file.
_FILES = tuple(f"{stem}{end}" for end in (".safetensors", ".bin") for stem in ("adapter_model", "pytorch_lora_weights"))
# Reads the files. Named and not imported, so that configs depend on no family.
_APPLIED = "zoo.families.lora.applied"


def check_adapters(value: Any, stages: Sequence[str]) -> list[dict[str, Any]]:
    """Entries with every default written out, and the SHA-256 that each file has.

    Args:
        value: a list of entries, each a mapping or `FILE[:SCALE]`.
        stages: the pipeline's, by name; the first is adapted where an entry names none.

    Raises ConfigError for an entry that says nothing of use; WeightsError for a file that isn't there, or isn't the one
    whose hash its entry or card states.
    """
    if not isinstance(value, list):
        raise ConfigError(
            f"adapters is {show(value)}; write a list of files, like [style.safetensors:0.8]",
            code="config-value-invalid",
        )
    made = [_entry(item, f"adapters.{i}", stages) for i, item in enumerate(value)]
    places = [(entry["file"], entry["stage"]) for entry in made]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"adapters: '{twice[0]}' stands twice for stage '{twice[1]}'; keep one, with the scale of both",
            code="entries-repeated",
        )
    return made


def check_fit(config: Mapping[str, Any], cards: Cards, known: Registry) -> None:
    """WeightsError where a LoRA of a checked config doesn't fit, by its file's header and the networks' shapes."""
    if config.get("adapters"):
        import_module(_APPLIED).check(config, cards.read, known)


def settings_file(file: Path) -> Path | None:
    """PEFT's settings beside an `adapter_model`."""
    found = file.parent / SETTINGS
    return found if file.stem == "adapter_model" and found.is_file() else None


def _entry(item: Any, where: str, stages: Sequence[str]) -> dict[str, Any]:
    entry = dict(item) if isinstance(item, Mapping) else _parsed(item, where)
    for key in entry:
        if key not in KEYS:
            raise ConfigError(f"{where}: {unknown('key', key, KEYS)}", code="config-key-unknown")
    if not isinstance(entry.get("file"), str) or not entry["file"]:
        raise ConfigError(f"{where} names no file; add file: the path of a LoRA", code="config-key-missing")
    scale = entry.get("scale", 1.0)
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not number or not -LARGEST_SCALE <= scale <= LARGEST_SCALE:
        raise ConfigError(
            f"{where}: the scale is {show(scale)}; write a number from {-LARGEST_SCALE:g} to {LARGEST_SCALE:g}, "
            "1 is the LoRA as it was trained",
            code="number-out-of-range",
        )
    stage = entry.get("stage", stages[0])
    if stage not in stages:
        raise ConfigError(f"{where}: {unknown('stage', stage, stages)}", code="stage-unknown")
    file = _found(Path(entry["file"]).expanduser().absolute(), where)  # a record holds it
    digest, said = _hash(file), entry.get("sha256")
    if said not in (None, digest):
        raise WeightsError(
            f"{where}: '{file}' is another file than the one that is meant (SHA-256 {digest[:12]}, not "
            f"{str(said)[:12]}); give that one, or leave sha256 out",
            code="weights-hash-wrong",
        )
    return {"file": str(file), "scale": float(scale), "stage": stage, "sha256": digest}


def _parsed(item: Any, where: str) -> dict[str, Any]:
    """`FILE[:SCALE]`; a colon may stand in a path as well."""
    if not isinstance(item, str):
        raise ConfigError(
            f"{where} is {show(item)}; write FILE, FILE:SCALE, or a block with file and scale",
            code="config-value-invalid",
        )
    path, colon, scale = item.rpartition(":")
    if not colon or item.lower().endswith(SUFFIXES):
        return {"file": item}
    try:
        return {"file": path, "scale": float(scale)}
    except ValueError as error:
        raise ConfigError(
            f"{where}: the scale of '{path}' is {show(scale)}; write a number, like '{path}:0.8'",
            code="number-out-of-range",
        ) from error


def _found(path: Path, where: str) -> Path:
    """The file itself, of a folder the one in it."""
    if path.is_dir():
        path = next((path / name for name in _FILES if (path / name).is_file()), path / _FILES[0])
    if not path.is_file():
        raise WeightsError(f"{where}: there is no file '{path}'; give a LoRA's", code="weights-missing")
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(
            f"{where}: '{path}' has none of the endings of a LoRA's file ({', '.join(SUFFIXES)}); give one that has",
            code="weights-format-unread",
        )
    return path


def _hash(file: Path) -> str:
    """SHA-256 of a file; with PEFT's settings beside it, of the hashes of both, since these decide its strength too."""
    settings = settings_file(file)
    found = [_hashed(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in (file, settings) if path]
    card = file.with_suffix(".yaml")
    try:
        about = read_mapping(card) if card.is_file() else {}
    except ConfigError:
        about = {}  # somebody else's file
    own = about.get("file") if about.get("schema") == CARD_SCHEMA else None
    stated = own.get("sha256") if isinstance(own, Mapping) else None
    if stated not in (None, found[0]):
        raise WeightsError(
            f"'{file}' isn't what its card '{card.name}' describes (SHA-256 {found[0][:12]}, not {str(stated)[:12]}); "
            "it is damaged or another file, so restore it",
            code="weights-hash-wrong",
        )
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


@lru_cache(maxsize=64)
def _hashed(path: str, changed: int, size: int) -> str:
    return sha256_of(Path(path))
