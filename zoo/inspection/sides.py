"""One side of a comparison: a config as it will run, or as it ran, and what is known of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.config.cards import Cards
from zoo.config.check import resolve
from zoo.config.overrides import Overrides, at_call_scale
from zoo.records.reading import check_record, check_whole, read_json, read_record
from zoo.schema.errors import UsageError
from zoo.schema.plain import to_plain
from zoo.schema.registry import Registry

Source = str | Path | Mapping[str, Any]
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".npy")  # whose record is inside or beside them


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is compared; `record` is None for a config that hasn't run."""

    label: str
    config: Mapping[str, Any]
    record: Mapping[str, Any] | None = None
    cards: Cards = field(default_factory=Cards)  # each file is read once a side

    @property
    def stages(self) -> list[Mapping[str, Any]]:
        """The stages that run."""
        return self.config["stages"]

    def evaluations(self, stage: str) -> int | None:
        """The number of network evaluations that a record states for a stage."""
        ran = self.record["stages"] if self.record is not None else []
        found = next((s.get("evaluations") for s in ran if s.get("name") == stage), None)
        return found if isinstance(found, int) else None

    def recorded_hash(self, weights: str) -> str | None:
        """The SHA-256 that a record states for a weight file."""
        found = None if self.record is None else self.record["weights"].get(weights)
        return found if isinstance(found, str) else None


def read_side(
    source: Source, *, overrides: Overrides = None, shortcuts: Mapping[str, Any] | None = None, components: Registry
) -> Side:
    """A pipeline's name, the path of a config, of a record's JSON or of a PNG, or a mapping of either kind."""
    label = source if isinstance(source, str) else source.name if isinstance(source, Path) else "a mapping"
    record: Mapping[str, Any] | None = None
    config: Source = source
    if isinstance(source, Mapping):
        record = source if _is_record(source) else None
    elif str(source).lower().endswith(PICTURES):
        record = read_record(source)
    elif str(source).lower().endswith(".json"):
        found = read_json(source)
        inner = found.get("record")
        found = inner if isinstance(inner, dict) else found  # what `zoo generate --json` prints
        record, config = (found, source) if _is_record(found) else (None, found)
    if record is None:
        checked = resolve(config, overrides, shortcuts, components=components)
        return Side(label=label, config=checked.config, cards=Cards(dict(checked.cards)))
    plain = to_plain(record, label)
    whole = check_whole(check_record(plain, source=label), source=label)
    if overrides or any(v is not None for v in (shortcuts or {}).values()):
        whole["config"] = resolve(whole["config"], overrides, shortcuts, components=components).config
    return Side(label=label, config=as_it_ran(whole, label, components), record=whole)


def as_it_ran(record: Mapping[str, Any], source: str, components: Registry) -> dict[str, Any]:
    """A record's config with what the call requested in its place: stages, steps, guidance and size."""
    ran = [stage.get("name") for stage in record["stages"]]
    stages = [dict(stage) for stage in record["config"]["stages"] if stage.get("name") in ran]
    named = all(isinstance(s.get("name"), str) and isinstance(s.get("denoiser"), dict) for s in stages)
    if not stages or not named or not all("name" in block(s.get("sampler")) for s in stages):
        raise UsageError(
            f"the record in '{source}' speaks of stages that its config hasn't; it was changed", code="record-changed"
        )
    asked = record.get("asked") or {}
    for stage in stages:
        if asked.get("steps") is not None:
            stage["sampler"] = {**block(stage.get("sampler")), "steps": asked["steps"]}
        if asked.get("guidance") is not None:
            listed_guidance = listed(stage.get("guidance"))
            stage["guidance"] = [at_call_scale(g, asked["guidance"], components) or g for g in listed_guidance]
    if asked.get("size") is not None:
        stages[-1]["size"] = asked["size"]
    return {**record["config"], "stages": stages}


def block(value: Any) -> dict[str, Any]:
    """A component block as a mapping: `trailing` is {name: trailing}."""
    return {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """A list of blocks, also where one stands alone or none does."""
    return [] if value is None else value if isinstance(value, list) else [value]


def _is_record(value: Mapping[str, Any]) -> bool:
    return str(value.get("schema", "")).startswith("zoo.generation/")
