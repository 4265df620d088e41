"""What blocks mean: defaults written out, a network by its card, schedules and network evaluations as numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite, log
from typing import Any

from zoo.comparison.sides import Side, block
from zoo.config.cards import Card, read_card
from zoo.errors import ZooError
from zoo.registry import KINDS, Registry

NEARLY_CLEAN = 0.001  # the t at which a schedule's clean end is told: the first of a thousand points
_SHOWN = 8  # entries of a list, like the names of classes
# sigma / alpha at t = 1 of schedules with their defaults. Making one takes numpy, a third of what `zoo diff` takes.
NOISIEST = {
    "linear": 157.407, "scaled-linear": 14.6146, "quadratic": 36.9119, "cosine": 20291.2, "shifted-cosine": 1808.04,
    "sigmoid": 158.743, "vp-sde": 152.167, "sub-vp": 152.164, "ve": 50.0, "edm": 80.0, "flow": inf,
}  # fmt: skip
_MADE = re.compile(r"([A-Za-z_]\w*)\(\)")  # a default that is a component: Trailing()


@dataclass(frozen=True)
class Weights:
    """What fills a slot: a card's name and the hash of its file, or a component that has no weights."""

    name: str | None  # the card's
    sha256: str | None
    facts: Mapping[str, Any]  # the denoiser's block, or the component's; empty where the card isn't the one meant


@dataclass(frozen=True)
class ScheduleFacts:
    """A schedule's ends as numbers."""

    first_alpha: float  # at the first point; 1 for a continuous one
    final_alpha: float  # at t = 1
    noisiest: float  # sigma / alpha at t = 1, may be infinite
    log_snr: tuple[float, float]  # at t = 0.001 and at t = 1, may be infinite


def written(kind: str, value: Any, registry: Registry) -> dict[str, Any]:
    """A block with its defaults written out as far as they are plain; as it is, where its component isn't here."""
    named = block(value)
    try:
        parameters = registry.entry(kind, named.get("name", "")).signature().parameters
    except ZooError:
        return named
    found: dict[str, Any] = {"name": named["name"]}
    for p in parameters:
        given = named[p.name] if p.name in named else _default(p.default, p.name, registry)
        found[p.name] = written(p.name, given, registry) if p.name in KINDS and _is_block(given) else given
    return found | {k: v for k, v in named.items() if k not in found}


def _default(text: str | None, name: str, registry: Registry) -> Any:
    """A default of source text as a plain value; None where it is neither a literal nor a component without words."""
    import ast

    made = _MADE.fullmatch(text or "")
    if made is not None and name in KINDS:
        ends = f":{made[1]}"
        return next((e.name for e in registry if e.kind == name and str(e.target).endswith(ends)), None)
    try:
        return ast.literal_eval(text or "None")
    except (ValueError, SyntaxError):
        return None


def _is_block(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and "name" in value)


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
        k: brief(k, v, registry) if k in KINDS and _is_block(v) else v
        for k, v in full.items() if k == "name" or plain.get(k) != v
    })  # fmt: skip


def weights(value: Any, side: Side, *, denoiser: bool = False) -> Weights:
    """A slot that weights can fill."""
    given = block(value)
    name = given.get("weights")
    if not isinstance(name, str):
        return Weights(None, None, given)
    recorded = side.recorded_hash(name)
    card = _card(name)
    if card is None or (recorded is not None and recorded != card.sha256):
        # What the card that is here says needn't be true of the file that was used.
        return Weights(name, recorded, {})
    return Weights(name, card.sha256, (card.denoiser or {}) if denoiser else card.block)


def _card(name: str) -> Card | None:
    try:
        return read_card(name)
    except ZooError:
        return None


def make(kind: str, value: Any, registry: Registry) -> Any:
    """The component of a block, and those inside it; for schedules that takes numpy alone."""
    named = block(value)
    target = registry.load(kind, named.pop("name", ""))
    return target(**{k: make(k, v, registry) if k in KINDS and _is_block(v) else v for k, v in named.items()})


def schedule_facts(value: Any, registry: Registry) -> ScheduleFacts | None:
    """The ends of a schedule; None where it can't be made."""
    try:
        schedule = make("schedule", value, registry)
        ends = [tuple(float(v) for v in schedule(t)) for t in (NEARLY_CLEAN, 1.0)]
        first = 1.0 if schedule.T is None else float(schedule(1.0 / schedule.T)[0])
    except (ZooError, TypeError, ValueError):
        return None
    (alpha, sigma), (final, noise) = ends
    return ScheduleFacts(first, final, noise / final if final > 0.0 else inf, (_snr(alpha, sigma), _snr(final, noise)))


def noisiest(value: Any, registry: Registry) -> float:
    """sigma / alpha at t = 1; infinite where the schedule can't be made. Schedules as they come aren't made for it."""
    plain = written("schedule", value, registry)
    known = NOISIEST.get(str(plain.get("name")))
    if known is not None and plain == written("schedule", {"name": plain["name"]}, registry):
        return known
    facts = schedule_facts(value, registry)
    return inf if facts is None else facts.noisiest


def _snr(alpha: float, sigma: float) -> float:
    if alpha > 0.0 and sigma > 0.0:
        return 2.0 * log(alpha / sigma)
    return -inf if alpha <= 0.0 else inf


def evaluations(sampler: Mapping[str, Any], ratio: Callable[[], float]) -> tuple[int, bool] | None:
    """(network evaluations of a whole run, whether that is exact or the most it can be); None for unknown samplers.

    Where a schedule begins at pure noise or next to it, solvers leave evaluations out of their first step; for those
    alone `ratio` is asked, sigma / alpha at t = 1.
    """
    steps, name = sampler.get("steps"), sampler.get("name")
    if isinstance(steps, bool) or not isinstance(steps, int):
        return None
    if block(sampler.get("grid", "trailing")).get("name") not in _GRIDS:
        return None  # a grid that goes back, or a plugin's, has nodes of its own
    if name == "repaint":
        return _evaluations_of_repaint(sampler, steps, ratio)
    if name in _ONE_EACH:
        return steps, True
    if name == "predictor-corrector":
        return steps * (1 + int(sampler["corrections"])), True
    clean = sampler.get("final", "clean") == "clean"  # a step to sigma = 0 is first order
    repeats = {"heun": 2, "edm": 2, "dpmpp-sde": 2}.get(str(name)) or sampler.get(_REPEATS.get(str(name), ""), 0)
    if name != "plms" and not repeats:
        return None
    begins = ratio()
    walks, starts = clean and begins <= 100.0, clean and isfinite(begins)  # `leaps` of samplers/linear.py
    if name == "plms":
        return (steps + 1, walks) if steps > 1 or not clean else (1, True)
    each = int(repeats)
    if name == "annealed-langevin":
        return steps * each, starts
    return each * (steps - clean) + clean, walks if name in ("heun", "edm") else starts


def _evaluations_of_repaint(
    sampler: Mapping[str, Any], steps: int, ratio: Callable[[], float]
) -> tuple[int, bool] | None:
    """Those of the sampler it holds, over all steps that are walked (zoo.samplers.repaint); only one is to the end."""
    inner, jump, resamples = block(sampler.get("sampler")), sampler.get("jump"), sampler.get("resamples")
    if inner.get("name") == "plms" or not isinstance(jump, int) or not isinstance(resamples, int) or jump < 1:
        return None  # PLMS begins anew in each stretch
    jumps = len(range(0, steps - jump, jump)) * (resamples - 1)
    return evaluations({**inner, "steps": steps + jumps * jump}, ratio)


def full_evaluations(count: int, step_cache: Any, registry: Registry) -> int:
    """How many of a run's evaluations are of the whole network (zoo.step_cache)."""
    cache = written("step_cache", step_cache, registry) if step_cache else {}
    every = cache.get("every")
    return -(-count // every) if cache.get("name") == "deep-features" and isinstance(every, int) and every else count


_REPEATS = {"dpm-solver": "order", "annealed-langevin": "repeats"}  # the argument that says how often a step asks
_ONE_EACH = ("ddpm", "ddim", "dpmpp-2m", "euler", "euler-ancestral", "dpmpp-2m-sde", "lms", "unipc")
_GRIDS = ("leading", "trailing", "linspace", "karras", "log-snr", "exponential", "sections", "table")  # a node a step
