"""Two pipelines, configs or records compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.config.overrides import Overrides
from zoo.inspection.facts import show, weights, written
from zoo.inspection.sides import Side, Source, block, read_side
from zoo.inspection.stages import Difference, Pair, compare_stages, compare_weights
from zoo.schema.errors import UsageError, ZooError
from zoo.schema.registry import Registry, registry

SCHEMA = "zoo.diff/1"


@dataclass(frozen=True)
class Comparison:
    """What differs and what doesn't; true where anything differs. `str()` is for people, `to_dict()` for programs."""

    a: str
    b: str
    same: tuple[tuple[str | None, str], ...]  # (stage, words)
    differences: tuple[Difference, ...]
    stages: int  # how many the longer side has

    def __bool__(self) -> bool:
        return bool(self.differences)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "schema": SCHEMA, "a": self.a, "b": self.b, "same": [words for _, words in self.same],
            "differences": [asdict(d) for d in self.differences],
        }  # fmt: skip

    def lines(self) -> list[str]:
        """A stage's lines begin with its name where there are several."""
        if not self.differences:
            return ["no difference in what is sampled"]

        def prefix(stage: str | None) -> str:
            return f"{stage}: " if stage is not None and self.stages > 1 else ""

        found: list[str] = []
        order = dict.fromkeys([d.stage for d in self.differences if d.stage is not None])
        for stage in [*order, None]:
            here = [words for where, words in self.same if where == stage and stage is not None]
            found += [prefix(stage) + "; ".join(here)] if here else []
            found += [prefix(stage) + d.text for d in self.differences if d.stage == stage]
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())


def compare(
    a: Source, b: Source, *, overrides: Overrides = None, components: Registry | None = None, **shortcuts: Any
) -> Comparison:
    """What differs from `a` to `b`: pipelines' names, config files, records (a PNG of zoo's, JSON), or mappings.

    overrides and shortcuts (`sampler`, `steps`, `guidance`) change `b`, as they do in `zoo.build`. Raises ZooError for
    what can't be read. Never imports torch.
    """
    known = registry() if components is None else components
    side_a = read_side(a, components=known)
    side_b = read_side(b, overrides=overrides, shortcuts=shortcuts, components=known)
    try:
        return _compare(side_a, side_b, known)
    except ZooError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A record's config is compared as it stands: to check it would need the weights it names.
        records = " or ".join(f"'{side.label}'" for side in (side_a, side_b) if side.record is not None)
        if not records:
            raise
        raise UsageError(
            f"the config in {records} is not one that zoo writes; it was changed", code="record-changed"
        ) from error


def _compare(side_a: Side, side_b: Side, known: Registry) -> Comparison:
    same: list[tuple[str | None, str]] = []
    differences: list[Difference] = []
    for name, one, two in _pair(side_a, side_b):
        if one is None or two is None:
            differences.append(_lone(name, one, two))
            continue
        if one["name"] != two["name"]:
            text = f"stage {one['name']} is called {two['name']}"
            differences.append(Difference(name, "name", one["name"], two["name"], text))
        for found in compare_stages(Pair(name, one, two, side_a, side_b, known)):
            if isinstance(found, str):
                same.append((name, found))
            else:
                differences.append(found)
    differences += _conditioners(side_a, side_b)
    safety = [
        written("safety", s.config["safety"], known) if s.config.get("safety") else None for s in (side_a, side_b)
    ]
    if safety[0] != safety[1]:
        text = f"safety {show(safety[0])} -> {show(safety[1])}"
        differences.append(Difference(None, "safety", safety[0], safety[1], text))
    differences += _adapters(side_a.config.get("adapters") or [], side_b.config.get("adapters") or [])
    differences += _runs(side_a.record, side_b.record)
    count = max(len(side_a.stages), len(side_b.stages))
    return Comparison(side_a.label, side_b.label, tuple(same), tuple(differences), count)


def _pair(a: Side, b: Side) -> Iterator[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """Stages of one name; then, of those left over, the first ones of one size; then what is on one side alone."""
    others = {stage["name"]: stage for stage in b.stages}
    pairs: list[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]
    pairs = [(stage, others.pop(stage["name"], None)) for stage in a.stages]
    for i, (one, two) in enumerate(pairs):
        if one is not None and two is None:
            like = next((s for s in others.values() if s.get("size") == one.get("size")), None)
            pairs[i] = (one, None if like is None else others.pop(like["name"]))
    for one, two in [*pairs, *((None, stage) for stage in b.stages if stage["name"] in others)]:
        yield (one or two or {})["name"], one, two


def _lone(name: str, one: Mapping[str, Any] | None, two: Mapping[str, Any] | None) -> Difference:
    stage = one or two or {}
    sampler = block(stage.get("sampler"))
    said = f"{show(stage.get('size'))} pixels, {sampler.get('name')}, {show(sampler.get('steps'))} steps"
    net = block(stage.get("denoiser")).get("weights")
    said = f"{said}, network {net}" if net else said
    return Difference(name, "stage", one, two, f"stage {name} {'added' if one is None else 'removed'} ({said})")


def _conditioners(a: Side, b: Side) -> Iterator[Difference]:
    heard_a, heard_b = a.config.get("conditioners") or {}, b.config.get("conditioners") or {}
    for name in {**heard_a, **heard_b}:
        if name not in heard_a or name not in heard_b:
            said = f"conditioner {name} ({show(heard_b.get(name, heard_a.get(name)))}) "
            said += "added" if name in heard_b else "removed"
            yield Difference(None, "conditioner", heard_a.get(name), heard_b.get(name), said)
            continue
        said = compare_weights(f"conditioner {name}:", weights(heard_a[name], a), weights(heard_b[name], b))
        if said is not None:
            yield Difference(None, "conditioner", heard_a[name], heard_b[name], said.replace(f"{name}: ", f"{name} "))


def _adapters(a: list[Mapping[str, Any]], b: list[Mapping[str, Any]]) -> Iterator[Difference]:
    """LoRAs, by the hashes of their files."""
    one, two = ({(e["sha256"], e["scale"], e["stage"]) for e in side} for side in (a, b))
    if one != two:
        said = (
            ", ".join(f"{Path(e['file']).name}:{show(e['scale'])} ({str(e['sha256'])[:8]})" for e in side) or "none"
            for side in (a, b)
        )
        yield Difference(None, "adapters", list(a), list(b), f"LoRAs {' -> '.join(said)}")


def _runs(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Iterator[Difference]:
    """Differences between the runs of two records; configs have none."""
    if a is None or b is None:
        return
    same_noise = _addresses(a) is not None and _addresses(a) == _addresses(b)  # however the records write it
    for what in ("inputs", "device", "dtype") if same_noise else ("seed", "noise", "inputs", "device", "dtype"):
        if a.get(what) != b.get(what):
            one, two = (_brief(r.get(what)) for r in (a, b))
            yield Difference(None, what, a.get(what), b.get(what), f"{what} {one} -> {two}")
    for what in ("prompt", "negative", "label", "sample"):
        one, two = ([image.get(what) for image in r["images"]] for r in (a, b))
        if one != two:
            yield Difference(None, what, one, two, f"{what} {_few(one)} -> {_few(two)}")
    versions_a, versions_b = a.get("versions") or {}, b.get("versions") or {}
    for name in {**versions_a, **versions_b}:
        one, two = versions_a.get(name), versions_b.get(name)
        if one != two:
            yield Difference(None, f"version of {name}", one, two, f"{name} {one} -> {two}")
    strength = [(r.get("asked") or {}).get("strength") for r in (a, b)]
    if strength[0] != strength[1]:
        text = f"strength {show(strength[0])} -> {show(strength[1])}"
        yield Difference(None, "strength", strength[0], strength[1], text)


def _addresses(record: Mapping[str, Any]) -> list[tuple[Any, Any]] | None:
    """Seed and number of each image's noise, written once or one an image; None of noise without a seed."""
    found = [(image.get("seed", record.get("seed")), image.get("sample")) for image in record["images"]]
    return None if any(seed is None for seed, _ in found) else found


def _brief(value: Any) -> str:
    """Hashes of input images by their first digits."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {str(v)[:8]}" for k, v in value.items()) or "none"
    return "none" if value is None else str(value)  # a seed is a name, not a quantity


def _few(values: list[Any]) -> str:
    """Some of a list of words."""
    shown = list(dict.fromkeys("none" if v in (None, "") else repr(v) for v in values))
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
