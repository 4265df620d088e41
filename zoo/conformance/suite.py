"""The suite: which checks a kind has, how a component is made for them, and all of a package at once.

A component is made with its own defaults, over them its `example` (a class attribute or a class method: the arguments
of a small one), over that what the caller gives. Plain values that name a component of another kind (an argument called
like a kind: `grid: karras`) become that component, as in a config.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from zoo.config.blocks import is_block, make
from zoo.conformance import ends, guidance, metrics, modules, samplers, schedules
from zoo.conformance.report import Check, Fault, Outcome, Report, Subject, hold
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.registry import KINDS, Entry, find_plugin, registry

# Kinds without checks of their own are still listed, imported, described and made.
CHECKS: Mapping[str, tuple[Check, ...]] = {
    "sampler": samplers.CHECKS,
    "network": modules.CHECKS,
    "autoencoder": ends.AUTOENCODER_CHECKS,
    "conditioner": ends.CONDITIONER_CHECKS,
    "schedule": schedules.SCHEDULE_CHECKS,
    "parameterization": schedules.PARAMETERIZATION_CHECKS,
    "grid": schedules.GRID_CHECKS,
    "guidance": guidance.CHECKS,
    "extractor": ends.EXTRACTOR_CHECKS,
    "metric": metrics.CHECKS,
    "safety": ends.SAFETY_CHECKS,
}
Arguments = Mapping[str, Mapping[str, Any]]  # kind/name -> arguments


def examine(kind: str, target: Callable[..., Any], /, *, name: str | None = None, **arguments: Any) -> Report:
    """Hold a class or function to the promises of its kind; `arguments` make a small one, over its `example`."""
    if kind not in KINDS:
        from zoo.schema.unknown import unknown

        raise UsageError(unknown("kind", kind, KINDS), code="kind-unknown")
    called: str = str(getattr(target, "__name__", "component")) if name is None else name
    return Report(f"{kind}/{called}", _examine(kind, called, target, arguments))


def examine_component(key: str, arguments: Arguments | None = None) -> Report:
    """Hold a registered component, "kind/name", to the promises of its kind."""
    kind, _, name = key.partition("/")
    return Report(key, _examine_entry(registry().entry(kind, name), (arguments or {}).get(key, {})))


def examine_package(package: str, arguments: Arguments | None = None) -> Report:
    """Hold every plugin of an installed package to the promises of its kind; UsageError where it has none."""
    plugin = find_plugin(package)
    given = dict(arguments or {})
    stray = sorted(given.keys() - set(plugin.keys))
    if stray:
        from zoo.schema.unknown import unknown

        raise UsageError(unknown(f"component of '{plugin.package}'", stray[0], plugin.keys), code="component-unknown")
    known, source = registry(), f"plugin package '{plugin.package}'"
    # One that takes a name of zoo's own isn't the entry of that name.
    entries = {key: replace(known.at(key), broken=known.fault(key, source)) for key in plugin.keys}
    outcomes = [o for key, entry in entries.items() for o in _examine_entry(entry, given.get(key, {}))]
    return Report(plugin.package, tuple(outcomes), version=plugin.version)


def _examine_entry(entry: Entry, arguments: Mapping[str, Any]) -> tuple[Outcome, ...]:
    def listed(_: Subject) -> None:
        if entry.broken is not None:
            raise Fault(entry.broken, "mend its entry point, and install the package again")

    def described(_: Subject) -> None:
        if not entry.summary():
            raise Fault("it has no docstring", "say in one sentence what it is: `zoo list` shows that")

    def imported(_: Subject) -> None:
        try:
            entry.load()
        except ConfigError as error:
            raise Fault(str(error.__cause__ or error), "mend what its module does when it is imported") from error

    first = hold((Check("listed", "zoo finds it, and nothing speaks against it.", listed),), _bare(entry))
    if first[0].state == "failed":
        return first
    first += hold(
        (
            Check("described", "Its docstring says what it is.", described),
            Check("imported", "It can be imported.", imported),
        ),
        _bare(entry),
    )
    if first[-1].state == "failed":
        return first
    return (*first, *_examine(entry.kind, entry.name, entry.load(), arguments))


def _bare(entry: Entry) -> Subject:
    return Subject(entry.kind, entry.name, entry.load)


def _examine(kind: str, name: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[Outcome, ...]:
    def make(**more: Any) -> Any:
        given = {**_example(target), **arguments, **more}
        return target(**{key: _component(key, value) for key, value in given.items()})

    def made(subject: Subject) -> str:
        needed = [p for p in _parameters(target) if p.default is p.empty]
        missing = [p.name for p in needed if p.name not in {**_example(target), **arguments}]
        if missing:
            raise Fault(
                f"it can't be made without {', '.join(missing)}",
                f"give the arguments of a small one: a class attribute `example`, or --set {kind}.{name}.KEY=VALUE",
            )
        subject.make()
        told = {**_example(target), **arguments}
        return ", ".join(f"{key}={value}" for key, value in told.items()) if told else "with its defaults"

    defaults = {p.name: p.default for p in _parameters(target) if p.default is not p.empty}
    try:
        known = {**defaults, **_example(target), **arguments}
    except Exception:  # `made` reports it
        known = defaults
    subject = Subject(kind, name, make, known)
    first = hold((Check("made", "It can be made with its defaults and its example.", made),), subject)
    return first if first[0].state == "failed" else (*first, *hold(CHECKS.get(kind, ()), subject))


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _example(target: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a small one, where the component declares them."""
    found = getattr(target, "example", None)
    found = found() if callable(found) else found
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise Fault(f"its `example` is a {type(found).__name__}", "let it be a mapping: argument to value")
    return dict(found)


def _component(key: str, value: Any) -> Any:
    """A block of a kind as the component, anything else as it is."""
    return make(key, value, registry()) if key in KINDS and is_block(value) else value
