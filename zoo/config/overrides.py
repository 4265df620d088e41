"""Changing a pipeline from outside: merging, dotted overrides, and the shortcuts of `build`.

`stages.0.sampler.eta: 0.5` or `stages.base.sampler.eta: 0.5` sets one value; list entries are found by index or by
name. Naming another component (`stages.base.sampler: dpmpp-2m`) replaces its block and, for settings of a run
(samplers, grids, guidance), keeps of the old one what both take (steps). A mapping without a name is merged in.
Overrides apply after the shortcuts, in order.
Nothing here changes its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.config.prompts import SHORTCUTS as PROMPTS
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.plain import show, to_plain
from zoo.schema.registry import KINDS, Registry, registry
from zoo.schema.safe_yaml import MAX_DEPTH, parse_value
from zoo.schema.unknown import unknown

# A swap keeps what both components take where arguments are settings of a run. Those of networks, autoencoders,
# conditioners and schedules describe what was trained, and mean nothing to another one.
_KEEPING = ("sampler", "grid", "guidance")
# Of samplers, what means the same in all of them: DDIM's eta of 0 would turn off an ancestral sampler's noise.
_ANY_SAMPLERS = frozenset({"steps", "grid", "final"})
SHORTCUTS = ("sampler", "steps", "guidance", "adapters", *PROMPTS)
Overrides = Mapping[str, Any] | Sequence[str] | None


def merge(base: Any, changes: Any) -> Any:
    """`base` with the values of `changes`; mappings are merged key by key, anything else is replaced."""
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping):
        return changes
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def parse_overrides(overrides: Overrides) -> dict[str, Any]:
    """A mapping of dotted paths, from one or from `KEY=VALUE` texts whose values are YAML."""
    if overrides is None:
        return {}
    if isinstance(overrides, Mapping):
        return {_path_text(key): to_plain(value, str(key)) for key, value in overrides.items()}
    try:
        items = None if isinstance(overrides, (str, bytes)) else list(overrides)
    except TypeError:  # no iterable, or one without an axis
        items = None
    if items is None:
        raise UsageError(
            f"overrides are a mapping or a list of KEY=VALUE texts, not {type(overrides).__name__}; put a text in a "
            "list",
            code="override-invalid",
        )
    parsed: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not equals or not path.strip():
            raise UsageError(
                f"the override {show(item)} is not KEY=VALUE, like stages.0.sampler.steps=8", code="override-invalid"
            )
        # A later override of the same path also comes later in order.
        parsed.pop(path.strip(), None)
        parsed[path.strip()] = parse_value(text, source=f"the override {path.strip()[:60]}")
    return parsed


def override(config: Mapping[str, Any], path: str, value: Any, known: Registry) -> dict[str, Any]:
    """A copy of `config` with the value at a dotted path changed."""
    segments = _path_text(path).split(".")
    if not all(segments) or len(segments) > MAX_DEPTH:
        raise UsageError(
            f"'{path[:60]}' is no dotted path like stages.0.sampler.steps; mend it", code="override-invalid"
        )
    return _set(config, segments, value, None, path, known)


def apply_overrides(
    config: Mapping[str, Any], overrides: Overrides, components: Registry | None = None
) -> dict[str, Any]:
    """A copy of `config` with every override applied, in order."""
    known = registry() if components is None else components
    changed = dict(config)
    for path, value in parse_overrides(overrides).items():
        changed = override(changed, path, value, known)
    return changed


def _set(node: Any, segments: list[str], value: Any, kind: str | None, path: str, known: Registry) -> Any:
    """`node` with `value` at the segments; `kind` is what kind of component the node is, if any."""
    head, rest = segments[0], segments[1:]
    if isinstance(node, list):
        index = _find_item(node, head, path)
        inner = node[index]
        # `guidance: [...]` holds components of the list's kind; `stages: [...]` holds none.
        changed = _set(inner, rest, value, kind, path, known) if rest else _replace(inner, value, kind, known)
        return [*node[:index], changed, *node[index + 1 :]]
    if isinstance(node, str) and kind is not None:
        node = {"name": node}
    if node is None:
        node = {}
    if not isinstance(node, Mapping):
        raise UsageError(
            f"'{path[:80]}' looks for '{head[:40]}' inside {show(node)}, which has no parts; shorten the path",
            code="override-path-unknown",
        )
    if not rest and kind is not None and head in ("name", "weights"):
        return _replace(node, {head: value}, kind, known)
    inner_kind = head if head in (*KINDS, "denoiser") else "conditioner" if kind == "conditioners" else None
    inner_kind = "conditioners" if head == "conditioners" else inner_kind
    inner = node.get(head)
    changed = _set(inner, rest, value, inner_kind, path, known) if rest else _replace(inner, value, inner_kind, known)
    return {**node, head: changed}


def _find_item(items: list[Any], head: str, path: str) -> int:
    if head.isascii() and head.isdecimal() and len(head) < 6:
        if int(head) < len(items):
            return int(head)
        raise UsageError(
            f"'{path[:80]}': there is no entry {head} in a list of {len(items)}; count from 0",
            code="override-path-unknown",
        )
    names = [item.get("name") if isinstance(item, Mapping) else item for item in items]
    if head not in names:
        known = [name for name in names if isinstance(name, str)]
        raise UsageError(f"'{path[:80]}': {unknown('entry', head, known)}", code="override-path-unknown")
    return names.index(head)


def _replace(old: Any, new: Any, kind: str | None, known: Registry) -> Any:
    """The value of a slot after `new` was put there."""
    if kind not in KINDS and kind != "denoiser":
        return merge(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else new
    if isinstance(old, list) or new is None or not isinstance(new, (str, Mapping)):
        return new
    block = {"name": new} if isinstance(new, str) and kind != "denoiser" else new
    before = {"name": old} if isinstance(old, str) else old
    if not isinstance(block, Mapping) or not isinstance(before, Mapping):
        return new
    if "weights" in block or ("weights" in before and ("name" in block or "network" in block)):
        return block
    if "name" not in block or block["name"] == before.get("name"):
        return merge(before, block)
    if kind not in _KEEPING:
        return block
    kept = _takes(kind, before.get("name"), known) & _takes(kind, block["name"], known)
    kept = kept & _ANY_SAMPLERS if kind == "sampler" else kept
    return {"name": block["name"], **{k: v for k, v in before.items() if k in kept}, **block}


def _takes(kind: str, name: Any, known: Registry) -> set[str]:
    """The arguments of a component; none where it can't be used, which the check reports later."""
    try:
        return set(known.entry(kind, name).signature().names)
    except ConfigError:
        return set()


def check_form(config: Mapping[str, Any]) -> None:
    """Check what overrides rely on: stages are a list of mappings."""
    stages = config.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(s, Mapping) for s in stages):
        raise ConfigError("a pipeline needs stages: a list of one block or more; add it", code="stages-missing")


def apply_shortcuts(config: Mapping[str, Any], shortcuts: Mapping[str, Any], known: Registry) -> dict[str, Any]:
    """`sampler`, `steps` and `guidance` (classifier-free scale) where a stage has the slot; None means not given.

    `adapters` replaces the pipeline's own; those of its block `prompts` are `long_prompts`, `prompt_weighting` and
    `embeddings`. Super-resolution stages of a cascade keep their own steps: they take few, and more make no better
    images.
    """
    changed = dict(config)
    for name in shortcuts:
        if name not in SHORTCUTS:
            raise UsageError(
                unknown("shortcut", name, SHORTCUTS) + "; use overrides for anything else", code="shortcut-unknown"
            )
    given = {name: value for name, value in listed(shortcuts).items() if value is not None}
    if "embeddings" in given:
        files = [given["embeddings"]] if isinstance(given["embeddings"], (str, Path)) else given["embeddings"]
        given["embeddings"] = [str(file) if isinstance(file, Path) else file for file in files]
    given = {name: to_plain(value, name) for name, value in given.items()}
    if "adapters" in given:
        changed["adapters"] = given["adapters"]
    said = {key: given[name] for name, key in PROMPTS.items() if name in given}
    if said:
        changed["prompts"] = merge(changed.get("prompts") or {}, said)
    stages = range(len(changed["stages"]))
    if "sampler" in given:
        for i in stages:
            if changed["stages"][i].get("sampler") is not None:
                changed = override(changed, f"stages.{i}.sampler", given["sampler"], known)
    if "steps" in given:
        for i in stages:
            if i > 0 and changed["stages"][i - 1].get("feeds") == "low_res":
                continue
            sampler = changed["stages"][i].get("sampler")
            name = sampler.get("name") if isinstance(sampler, Mapping) else sampler
            if "steps" in _takes("sampler", name, known):
                changed = override(changed, f"stages.{i}.sampler.steps", given["steps"], known)
    if "guidance" in given:
        found = False
        for i in stages:
            guidance = changed["stages"][i].get("guidance") or []
            for k, block in enumerate(guidance) if isinstance(guidance, list) else ():
                scaled = at_call_scale(block, given["guidance"], known)
                if scaled is not None:
                    found = True
                    changed = override(changed, f"stages.{i}.guidance.{k}", scaled, known)
        if not found:
            raise UsageError(
                "guidance= sets the scale of classifier-free guidance, which no stage has; add it to one",
                code="guidance-missing",
            )
    return changed


def listed(shortcuts: Mapping[str, Any]) -> dict[str, Any]:
    """Shortcuts whose `adapters` are a list, of texts where paths were given; also where one stands alone."""
    adapters = shortcuts.get("adapters")
    if adapters is None:
        return dict(shortcuts)
    each = list(adapters) if isinstance(adapters, Sequence) and not isinstance(adapters, str) else [adapters]
    return {**shortcuts, "adapters": [str(one) if isinstance(one, Path) else one for one in each]}


def _path_text(path: Any) -> str:
    if not isinstance(path, str):
        raise UsageError(
            f"an override's path is text like stages.0.sampler.steps, not {show(path)}", code="override-invalid"
        )
    return path


def at_call_scale(block: Any, scale: Any, known: Registry) -> dict[str, Any] | None:
    """A guidance block with the scale that a call sets (`guidance=`), its own or a held one's; None without one."""
    named = {"name": block} if isinstance(block, str) else dict(block) if isinstance(block, Mapping) else {}
    try:
        argument = known.entry("guidance", named.get("name", "")).signature().constants.get("call_scale")
    except ConfigError:  # the check reports it
        argument = None
    if argument is not None:
        return {**named, argument: scale}
    inner = at_call_scale(named["guidance"], scale, known) if "guidance" in named else None
    return None if inner is None else {**named, "guidance": inner}
