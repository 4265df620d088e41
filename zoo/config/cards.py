"""Weight cards: zoo/weights/NAME.yaml beside NAME.safetensors says what the weights are and what they fit.

A card is named (`emoji-kl-f4`) or, for weights of one's own, given by the path of its YAML file. It names registry
keys and plain facts only; the weight file lies in the card's folder. A part of a model's own file or folder
(`PATH#unet`, `FOLDER/unet`) is weights too, whose card its family reads there (`zoo.config.sources`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from zoo.config.blocks import check_arguments, check_block
from zoo.config.card import Card
from zoo.config.published import read_published
from zoo.config.sources import is_source, source_card
from zoo.schema.errors import ConfigError, WeightsError
from zoo.schema.names import check_length
from zoo.schema.registry import KINDS, Registry
from zoo.schema.safe_yaml import read_mapping
from zoo.schema.signature import read_signature
from zoo.schema.unknown import unknown

CARD_SCHEMA = "zoo.card/1"
FOLDER = Path(__file__).resolve().parent.parent / "weights"
KEYS = (
    "schema", "name", "kind", "component", "summary", "config", "denoiser", "contract", "file", "words",
    "licence", "attribution", "data", "recipe", "metrics", "published", "provenance",
)  # fmt: skip
# The denoiser's arguments other than its network belong to the weights.
DENOISER = "zoo.diffusion.denoiser:Denoiser"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def card_names() -> list[str]:
    """The names of the shipped cards."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_card(name: str) -> Path:
    """The file of a card, by name or by the path of a .yaml file."""
    if not isinstance(name, str):
        raise ConfigError(f"weights are named by text, not {name!r}; write the name of a card", code="weights-unknown")
    check_length(name, "name of weights")
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    names = card_names()
    if name not in names:
        raise ConfigError(unknown("weights", name, names), code="weights-unknown")
    return FOLDER / f"{name}.yaml"


def read_card(name: str) -> Card:
    """Read a card and check its form; the weight file is not touched.

    A name like `PATH#unet` is a part of a model's own file, whose header says what a card would.
    """
    if isinstance(name, str) and is_source(name) and name not in card_names():
        return source_card(name)
    path = find_card(name)
    if not path.exists() and path.parent.name == "export":
        raise ConfigError(f"the weights '{path}' are not there; {_untrained(path)}", code="weights-missing")
    raw = read_mapping(path)
    check_schema(raw, CARD_SCHEMA, str(path))
    for key in raw:
        if key not in KEYS:
            raise ConfigError(f"card '{path}': {unknown('key', key, KEYS)}", code="card-key-unknown")
    kind = raw.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"card '{path}': {unknown('kind', kind, KINDS)}", code="kind-unknown")
    if not isinstance(raw.get("component"), str):
        raise ConfigError(
            f"card '{path}' names no component; add component: the registry name of a {kind}", code="card-key-missing"
        )
    for key in ("config", "contract", "file"):
        if not isinstance(raw.get(key, {} if key == "config" else None), Mapping):
            raise ConfigError(f"card '{path}' needs a mapping '{key}'; add it", code="card-key-missing")
    denoiser = raw.get("denoiser")
    if denoiser is not None and (kind != "network" or not isinstance(denoiser, Mapping)):
        raise ConfigError(
            f"card '{path}' has a denoiser that is no network's block; only networks have one",
            code="card-value-invalid",
        )
    _check_file_block(raw["file"], path)
    if "words" in raw and not _is_bare(raw["words"]):
        raise ConfigError(
            f"card '{path}' names the words {raw['words']!r}; give a bare file name in the card's folder",
            code="card-value-invalid",
        )
    read_published(raw.get("published"), f"card '{path}'")
    return Card(
        name=path.stem, path=path, kind=kind, component=raw["component"], summary=str(raw.get("summary") or ""),
        config=raw.get("config", {}), denoiser=raw.get("denoiser"), contract=raw["contract"], raw=raw,
    )  # fmt: skip


@dataclass(frozen=True)
class Cards:
    """Cards by the names that a config gives them; each file is read once. `read` holds those read so far."""

    read: dict[str, Card] = field(default_factory=dict)

    def __call__(self, name: str) -> Card:
        """The card of a name, or of a path; as `read_card`."""
        if not isinstance(name, str) or name not in self.read:
            card = read_card(name)
            self.read[name] = card
        return self.read[name]


def _untrained(path: Path) -> str:
    """What to do for the card of a training run that isn't there."""
    run = path.parent.parent
    recipes = [place / f"{run.name}.yaml" for place in (run.parent.parent, Path())]
    recipe = next((place for place in recipes if place.is_file()), None)
    begun = (run / "run.json").exists()
    command = f"zoo train {'RECIPE' if recipe is None else recipe.as_posix()}"
    if begun:
        return f"the run '{run}' was not trained to its end: {command} --run {run} --resume"
    return f"a training run writes them at its end, so train first: {command}" + (
        f" --run {run}" if recipe is not None and run.as_posix() != f"runs/{run.name}" else ""
    )


def check_card(card: Card, registry: Registry) -> dict[str, Any]:
    """Check a card's component and denoiser against the registry; the component's block, written out."""
    where = f"card '{card.name}'"
    block = check_block(card.block, kind=card.kind, where=where, registry=registry)
    if card.denoiser is not None:
        check_denoiser({**card.denoiser, "network": block}, where=f"{where}, denoiser", registry=registry)
    return block


def check_denoiser(block: Mapping[str, Any], *, where: str, registry: Registry) -> dict[str, Any]:
    """The arguments of a denoiser (network, schedule, parameterization, time_input, ...), written out."""
    return check_arguments(block, read_signature(DENOISER), what="a denoiser", where=where, registry=registry)


def check_weight_file(card: Card) -> None:
    """WeightsError unless the weight file exists and is as large as the card says; the loader checks its hash."""
    try:
        size = card.file.stat().st_size if card.file.is_file() else None
    except OSError:
        size = None
    if size is None:
        raise WeightsError(
            f"weights '{card.name}': the file '{card.file}' is missing; "
            "install zoo again or restore it beside its card",
            code="weights-missing",
        )
    if size != card.bytes:
        raise WeightsError(
            f"weights '{card.name}': '{card.file}' has {size} bytes where its card says {card.bytes}; "
            "it is damaged or not the one described, so restore it",
            code="weights-size-wrong",
        )


def check_schema(raw: Mapping[str, Any], expected: str, source: str) -> None:
    """Refuse a file of another kind or of a schema version that this zoo doesn't know."""
    found = raw.get("schema")
    if found == expected:
        return
    if found is None:
        raise ConfigError(f"'{source}' says no schema; add `schema: {expected}`", code="schema-missing")
    family = expected.partition("/")[0]
    if isinstance(found, str) and found.partition("/")[0] == family:
        raise ConfigError(
            f"'{source}' has schema '{found[:60]}', this zoo reads '{expected}'; install a zoo that knows it",
            code="schema-unknown",
        )
    raise ConfigError(
        f"'{source}' has schema {str(found)[:60]!r} where '{expected}' is read; give a file of that kind",
        code="schema-unknown",
    )


def _is_bare(name: Any) -> bool:
    """Whether a value is a file name that can't leave its folder."""
    bare = isinstance(name, str) and PurePath(name).name == name and name not in ("", "..")
    return bare and "\\" not in name and "\0" not in name


def _check_file_block(block: Mapping[str, Any], path: Path) -> None:
    name, size, digest = block.get("name"), block.get("bytes"), block.get("sha256")
    if not _is_bare(name):
        raise ConfigError(
            f"card '{path}' names the weight file {name!r}; give a bare file name in the card's folder",
            code="card-value-invalid",
        )
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ConfigError(
            f"card '{path}' has file.bytes {size!r}; write the size of '{name}' in bytes", code="card-value-invalid"
        )
    other = block.get("other") or []
    if not isinstance(other, list) or not all(isinstance(item, str) for item in other):
        raise ConfigError(
            f"card '{path}' has file.other {other!r}; write a list of tensor-name prefixes", code="card-value-invalid"
        )
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ConfigError(
            f"card '{path}' has no file.sha256 of 64 hex digits; write the hash of '{name}'", code="card-value-invalid"
        )
