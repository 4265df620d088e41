"""Facts of blocks: defaults written out, a network by its card, schedules and network evaluations as numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, log
from typing import TYPE_CHECKING, Any

from zoo.config.blocks import is_block, make
from zoo.config.cards import Card
from zoo.config.sampling import plan_of
from zoo.inspection.sides import Side, block
from zoo.schema.errors import ZooError
from zoo.schema.registry import KINDS, Registry

if TYPE_CHECKING:
    from zoo.diffusion.types import StepTable

NEARLY_CLEAN = 0.001  # the t at which a schedule's clean end is measured: the first of a thousand points
_SHOWN = 8  # entries of a list, like the names of classes
_MADE = re.compile(r"([A-Za-z_]\w*)\(\)")  # a default that is a component: Trailing()


@dataclass(frozen=True)
class Weights:
    """What fills a slot: a card's name and the hash of its file, or a component that has no weights."""

    name: str | None  # the card's
    sha256: str | None
    facts: Mapping[str, Any]  # the denoiser's block, or the component's; empty where the card isn't the same one


@dataclass(frozen=True)
class ScheduleFacts:
    """A schedule's ends as numbers."""

    final_alpha: float  # at t = 1
    log_snr: tuple[float, float]  # at t = 0.001 and at t = 1, may be infinite


def written(kind: str, value: Any, registry: Registry) -> dict[str, Any]:
    """A block with its defaults written out as far as they are plain; as it is, where its component isn't installed."""
    named = block(value)
    try:
        parameters = registry.entry(kind, named.get("name", "")).signature().parameters
    except ZooError:
        return named
    found: dict[str, Any] = {"name": named["name"]}
    for p in parameters:
        given = named[p.name] if p.name in named else _default(p.default, p.name, registry)
        found[p.name] = written(p.name, given, registry) if p.name in KINDS and is_block(given) else given
    return found | {k: v for k, v in named.items() if k not in found}


def _default(text: str | None, name: str, registry: Registry) -> Any:
    """A default of source text as a plain value; None unless it is a literal or a component without arguments."""
    import ast

    made = _MADE.fullmatch(text or "")
    if made is not None and name in KINDS:
        ends = f":{made[1]}"
        return next((e.name for e in registry if e.kind == name and str(e.target).endswith(ends)), None)
    try:
        return ast.literal_eval(text or "None")
    except (ValueError, SyntaxError):
        return None


def number(value: float) -> str:
    """A number as people write it: 1, 0.99957, -10.7."""
    return "none" if value == -inf else "infinite" if value == inf else f"{value:.5g}"


def show(value: Any) -> str:
    """Any plain value: `karras (rho 7)` for a block."""
    if isinstance(value, Mapping):
        name = value.get("name") or value.get("weights")
        inner = ", ".join(f"{k} {show(v)}" for k, v in value.items() if k not in ("name", "weights") and v is not None)
        return f"{name} ({inner})" if name and inner else str(name or f"({inner})")
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (list, tuple)):
        more = f", and {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
        return "[" + ", ".join(show(v) for v in value[:_SHOWN]) + more + "]"
    return str(value)


def brief(kind: str, value: Any, registry: Registry) -> str:
    """A block with only those arguments that differ from the component's defaults."""
    full = written(kind, value, registry)
    plain = written(kind, {"name": full.get("name")}, registry)
    return show({
        k: brief(k, v, registry) if k in KINDS and is_block(v) else v
        for k, v in full.items() if k == "name" or plain.get(k) != v
    })  # fmt: skip


def weights(value: Any, side: Side, *, denoiser: bool = False) -> Weights:
    """A slot that weights can fill."""
    given = block(value)
    name = given.get("weights")
    if not isinstance(name, str):
        return Weights(None, None, given)
    recorded = side.recorded_hash(name)
    card = _card(name, side)
    if card is None or (recorded is not None and recorded != card.sha256):
        # The installed card may differ from that of the file that was used.
        return Weights(name, recorded, {})
    return Weights(name, card.sha256, (card.denoiser or {}) if denoiser else card.block)


def _card(name: str, side: Side) -> Card | None:
    try:
        return side.cards(name)
    except ZooError:
        return None


def schedule_facts(value: Any, registry: Registry) -> ScheduleFacts | None:
    """The ends of a schedule; None where it can't be made."""
    try:
        schedule = make("schedule", value, registry)
        ends = [tuple(float(v) for v in schedule(t)) for t in (NEARLY_CLEAN, 1.0)]
    except (ZooError, TypeError, ValueError):
        return None
    (alpha, sigma), (final, noise) = ends
    return ScheduleFacts(final, (_snr(alpha, sigma), _snr(final, noise)))


def _snr(alpha: float, sigma: float) -> float:
    if alpha > 0.0 and sigma > 0.0:
        return 2.0 * log(alpha / sigma)
    return -inf if alpha <= 0.0 else inf


def plan(stage: Mapping[str, Any], side: Side, registry: Registry) -> StepTable | None:
    """The table of a stage's run; None where its components, or the facts of its card, aren't available."""
    schedule = weights(stage["denoiser"], side, denoiser=True).facts.get("schedule")
    try:
        return None if schedule is None else plan_of(stage, schedule, registry)
    except Exception:  # a record's config is as it stands, and a plugin's errors are of any kind
        return None


def full_evaluations(count: int, step_cache: Any, registry: Registry) -> int:
    """How many of a run's evaluations are of the whole network."""
    return make("step_cache", step_cache, registry).full_evaluations(count) if step_cache else count
