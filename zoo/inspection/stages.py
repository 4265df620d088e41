"""What differs between two stages, one sentence a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from zoo.inspection.facts import (
    NEARLY_CLEAN,
    Weights,
    brief,
    full_evaluations,
    number,
    plan,
    schedule_facts,
    show,
    weights,
    written,
)
from zoo.inspection.sides import Side, block, listed
from zoo.schema.registry import Registry

if TYPE_CHECKING:
    from zoo.diffusion.types import StepTable

# The denoiser's settings of its network's input, as the constructor names them.
_DENOISER = {
    "time_input": "index",
    "time_rounding": "nearest",
    "initial_scale": "sigma_T",
    "variance": None,
    "image_condition": None,
}


@dataclass(frozen=True)
class Difference:
    """One thing that differs: where, what, its values on both sides, and the sentence."""

    stage: str | None  # None for the whole pipeline or its run
    what: str
    a: Any
    b: Any
    text: str


@dataclass(frozen=True)
class Pair:
    """The same stage on both sides."""

    name: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]
    side_a: Side
    side_b: Side
    registry: Registry

    def differ(self, what: str, a: Any, b: Any, text: str | None = None) -> Difference:
        """A difference of this stage; `what a -> b` if no sentence is given."""
        return Difference(self.name, what, a, b, text or f"{what.replace('_', ' ')} {show(a)} -> {show(b)}")


def compare_stages(pair: Pair) -> Iterator[Difference | str]:
    """The differences, and what is the same as plain words."""
    yield from _network(pair)
    yield from _slot(pair, "autoencoder")
    yield from _guidance(pair)
    yield from _sampler(pair)
    caches = [written("step_cache", s["step_cache"], pair.registry) if s.get("step_cache") else None
              for s in (pair.a, pair.b)]  # fmt: skip
    if caches[0] != caches[1]:
        yield pair.differ("step_cache", caches[0], caches[1])
    for key, default in (
        ("size", None), ("interval", [1.0, 0.0]), ("takes", "noise"), ("feeds", "image"), ("listens", []),
        ("augmentation", None), ("values", None),
    ):  # fmt: skip
        a, b = pair.a.get(key, default), pair.b.get(key, default)
        if a != b:
            text = f"size {_pixels(a)} -> {_pixels(b)}" if key == "size" else None
            yield pair.differ(key, a, b, text)


def compare_weights(what: str, a: Weights, b: Weights) -> str | None:
    """The sentence about two slots that weights can fill; None where they are the same."""
    known = a.sha256 is not None and b.sha256 is not None
    if a.name is not None and b.name is not None:
        if known and a.sha256 == b.sha256:
            return None  # one file, whatever its card is called
        if a.name != b.name:
            return f"{what} {a.name} -> {b.name}"
        if not known:
            return None
        return f"other weights in {what} {a.name}: {_short(a.sha256)} -> {_short(b.sha256)}"
    if a == b:
        return None
    return f"{what} {a.name or show(a.facts)} -> {b.name or show(b.facts)}"


def _network(pair: Pair) -> Iterator[Difference | str]:
    a = weights(pair.a["denoiser"], pair.side_a, denoiser=True)
    b = weights(pair.b["denoiser"], pair.side_b, denoiser=True)
    if a.name is None and b.name is None:
        nets = [Weights(None, None, written("network", w.facts.get("network"), pair.registry)) for w in (a, b)]
        said = compare_weights("network", nets[0], nets[1])
    else:
        said = compare_weights("network", a, b)
    if said is None:
        yield f"same network{f' ({a.name})' if a.name else ''}"
    else:
        yield pair.differ("network", _identity(a), _identity(b), said)
    if not a.facts or not b.facts:
        if said is not None:
            yield "schedule and parameterization of weights that aren't here are unknown"
        return
    yield from _schedule(pair, a.facts.get("schedule"), b.facts.get("schedule"))
    for key in ("parameterization", "low_res"):
        one, two = (written(key, f[key], pair.registry) if f.get(key) else None for f in (a.facts, b.facts))
        if one != two:
            yield pair.differ(key, one, two)
    for key, default in _DENOISER.items():
        one, two = a.facts.get(key, default), b.facts.get(key, default)
        if one != two:
            yield pair.differ(key, one, two)


def _schedule(pair: Pair, a: Any, b: Any) -> Iterator[Difference]:
    one, two = written("schedule", a, pair.registry), written("schedule", b, pair.registry)
    if one == two:
        return
    if one["name"] == two["name"]:
        changed = [k for k in {**one, **two} if one.get(k) != two.get(k)]
        text = f"schedule {one['name']}: " + ", ".join(f"{k} {show(one.get(k))} -> {show(two.get(k))}" for k in changed)
    else:
        text = f"schedule {brief('schedule', a, pair.registry)} -> {brief('schedule', b, pair.registry)}"
    yield pair.differ("schedule", one, two, text)
    ends_a, ends_b = schedule_facts(a, pair.registry), schedule_facts(b, pair.registry)
    if ends_a is None or ends_b is None:
        return
    if number(ends_a.final_alpha) != number(ends_b.final_alpha):
        said = f"alpha at t = 1 {number(ends_a.final_alpha)} -> {number(ends_b.final_alpha)}"
        yield pair.differ("alpha_T", ends_a.final_alpha, ends_b.final_alpha, said)
    text_a, text_b = (f"{_snr(e.log_snr[0])} to {_snr(e.log_snr[1])}" for e in (ends_a, ends_b))
    if text_a != text_b:
        said = f"log-SNR from t = {NEARLY_CLEAN:g} to 1: {text_a} -> {text_b}"
        yield pair.differ("log_snr", _finite(ends_a.log_snr), _finite(ends_b.log_snr), said)


def _slot(pair: Pair, what: str) -> Iterator[Difference | str]:
    a, b = (
        weights(stage.get(what) or pair.registry.default(what), side)
        for stage, side in ((pair.a, pair.side_a), (pair.b, pair.side_b))
    )
    said = compare_weights(what, a, b)
    if said is not None:
        yield pair.differ(what, _identity(a), _identity(b), said)
    elif a.name is not None:
        yield f"same {what} ({a.name})"


def _guidance(pair: Pair) -> Iterator[Difference]:
    a = [written("guidance", g, pair.registry) for g in listed(pair.a.get("guidance"))]
    b = [written("guidance", g, pair.registry) for g in listed(pair.b.get("guidance"))]
    left = list(b)
    order: list[str] = []
    for one in a:
        two = next((g for g in left if g["name"] == one["name"]), None)
        if two is None:
            yield pair.differ("guidance", one, None, f"guidance {show(one)} removed")
            continue
        left.remove(two)
        order.append(one["name"])
        if one != two:
            changed = [k for k in {**one, **two} if one.get(k) != two.get(k)]
            said = ", ".join(f"{k} {show(one.get(k))} -> {show(two.get(k))}" for k in changed)
            yield pair.differ("guidance", one, two, f"guidance {one['name']}: {said}")
    for two in left:
        yield pair.differ("guidance", None, two, f"guidance {show(two)} added")
    there = [g["name"] for g in b if g not in left]
    if order != there:
        yield pair.differ("guidance_order", order, there, f"guidance in the order {show(order)} -> {show(there)}")


def _sampler(pair: Pair) -> Iterator[Difference]:
    raw_a, raw_b = block(pair.a.get("sampler")), block(pair.b.get("sampler"))
    a, b = written("sampler", raw_a, pair.registry), written("sampler", raw_b, pair.registry)
    if a.get("name") != b.get("name"):
        yield pair.differ("sampler", a.get("name"), b.get("name"))
    if a.get("steps") != b.get("steps"):
        said = f"{show(a.get('steps'))} -> {show(b.get('steps'))} steps"
        yield pair.differ("steps", a.get("steps"), b.get("steps"), said)
    tables = plan(pair.a, pair.side_a, pair.registry), plan(pair.b, pair.side_b, pair.registry)
    yield from _evaluations(pair, *tables)
    if "final" in a and "final" in b and a["final"] != b["final"]:
        if tables[0] is not None and tables[1] is not None:
            one, two = (table.steps[-1].alpha_next for table in tables if table is not None)
            yield pair.differ("final_alpha", one, two, f"final alpha {show(one)} -> {show(two)}")
        else:
            yield pair.differ("final", a["final"], b["final"])
    if a.get("grid") != b.get("grid"):
        one, two = (
            brief("grid", g, pair.registry) if g is not None else "none" for g in (a.get("grid"), b.get("grid"))
        )
        if one == two or block(a.get("grid")).get("name") == block(b.get("grid")).get("name"):
            one, two = show(a.get("grid")), show(b.get("grid"))
        yield pair.differ("grid", a.get("grid"), b.get("grid"), f"grid {one} -> {two}")
    plain = [written("sampler", {"name": s.get("name", "")}, pair.registry) for s in (a, b)]
    for key in [k for k in {**a, **b} if k not in ("name", "steps", "final", "grid")]:
        if key in a and key in b:
            if a[key] != b[key]:
                yield pair.differ(key, a[key], b[key])
        elif key in a and a[key] != plain[0].get(key):
            yield pair.differ(key, a[key], None, f"{key} {show(a[key])} of {a['name']} has no meaning in {b['name']}")
        elif key in b and b[key] != plain[1].get(key):
            yield pair.differ(key, None, b[key], f"{key} {show(b[key])} of {b['name']}")


def _evaluations(pair: Pair, *tables: StepTable | None) -> Iterator[Difference]:
    counts: list[tuple[int, bool] | None] = []
    for stage, side, table in zip((pair.a, pair.b), (pair.side_a, pair.side_b), tables, strict=True):
        recorded = side.evaluations(stage["name"])
        planned = None if table is None else (table.evaluations, not getattr(table, "at_most", False))
        counts.append(planned if recorded is None else (recorded, True))
    one, two = counts
    if one is None or two is None:
        return
    if one != two:
        said = " -> ".join(("" if exact else "up to ") + str(count) for count, exact in (one, two))
        yield pair.differ("network_evaluations", one[0], two[0], f"network evaluations {said}")
    full_a = full_evaluations(one[0], pair.a.get("step_cache"), pair.registry)
    full_b = full_evaluations(two[0], pair.b.get("step_cache"), pair.registry)
    if (full_a, full_b) != (one[0], two[0]) and full_a != full_b:
        yield pair.differ("full_evaluations", full_a, full_b, f"of the whole network {full_a} -> {full_b}")


def _identity(of: Weights) -> Any:
    return {"weights": of.name, "sha256": of.sha256} if of.name is not None else dict(of.facts)


def _short(sha256: str | None) -> str:
    return "unknown" if sha256 is None else sha256[:8]


def _pixels(size: Any) -> str:
    return "x".join(show(s) for s in size) if isinstance(size, (list, tuple)) else show(size)


def _snr(value: float) -> str:
    return f"{value:.3g}" if isfinite(value) else "no signal" if value < 0 else "no noise"


def _finite(values: tuple[float, float]) -> list[float | None]:
    return [v if isfinite(v) else None for v in values]
