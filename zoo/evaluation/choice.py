"""Which metric and which extractor a name means, by what they declare: read from source, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.config.blocks import check_block
from zoo.config.cards import card_names, read_card
from zoo.schema.errors import ZooError
from zoo.schema.registry import Registry

ANY = "any"  # the `of` of a metric that works with every extractor


def default_metrics(known: Registry) -> list[str]:
    """What is measured where no metric was named: the default metric, and those that are measured beside it."""
    return [known.default("metric"), *known.saying("metric", "beside")]


def metric_block(requested: str | Mapping[str, Any], known: Registry) -> tuple[dict[str, Any], str | None]:
    """A metric as a checked block, and the extractor in its name: `fd-resnet`, of one with `names_extractor`."""
    under = None
    if isinstance(requested, str) and requested not in known.names("metric"):
        for name in known.saying("metric", "names_extractor"):
            if requested.startswith(f"{name}-"):
                requested, under = name, requested.removeprefix(f"{name}-")
                break
    return check_block(requested, kind="metric", where="metrics", registry=known), under


def facts_of(kind: str, name: str, known: Registry) -> Mapping[str, Any]:
    """What a component declares; nothing of one that isn't there or can't be read."""
    try:
        return known.entry(kind, name).signature().constants
    except ZooError:
        return {}


def served_by(extractor: Any, known: Registry) -> tuple[str, ...]:
    """What an extractor serves, as far as its name, its card or the object itself declares."""
    if not isinstance(extractor, (str, Mapping)):
        inner = getattr(extractor, "extractor", extractor)
        return (*getattr(inner, "serves", ()), *(("clip",) if hasattr(inner, "texts") else ()))
    name = str(extractor if isinstance(extractor, str) else extractor.get("name"))
    if name in card_names() or name.endswith((".yaml", ".yml")):
        name = read_card(name).component
    return tuple(facts_of("extractor", name, known).get("serves") or ())


def default_extractor(of: str, known: Registry, shipped: str) -> str:
    """The extractor of a metric where none was named: the default, if it serves, then the shipped weights, then any."""
    first = known.default("extractor")
    able = [name for name in (first, shipped, *known.names("extractor")) if of == ANY or of in served_by(name, known)]
    return able[0] if able else first
