"""Whether a sampler fits the schedule that its network was trained under: a part of the contract.

Grids choose among a schedule's points or go between them; what their own code would refuse when a run is planned is
refused here, before any weight is read. How noisy a schedule gets is asked of the schedule itself, for zoo's own, and
only where a grid names noise levels: that needs numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, log
from typing import Any

from zoo.config.parts import StageParts, defaults, whole, written_schedule
from zoo.errors import ConfigError
from zoo.registry import Registry

# These lie between a schedule's points; all others choose among them.
FREE = ("karras", "log-snr", "exponential", "table")
COUNTED = ("leading", "linspace", "sections")  # and need points to choose among
CONTINUOUS = ("flow", "vp-sde", "sub-vp", "shifted-cosine")
NOISE = ("eta", "s_churn", "s_noise")  # arguments by which samplers add noise


@dataclass(frozen=True)
class Walk:
    """How a stage walks down: its steps and its grid, of the sampler itself or of the one that it holds."""

    steps: Any
    grid: Mapping[str, Any]
    final: str

    @property
    def name(self) -> str:
        """The grid's name; empty where nobody knows it."""
        return self.grid.get("name", "")

    @property
    def nodes(self) -> int:
        """How many of the schedule's points a counting grid takes."""
        return self.steps + bool(self.grid.get("skip_cleanest"))


def refuse_noise(block: Any, where: str, registry: Registry) -> None:
    """Refuse ancestral noise asked of a sampler that has no place for it, and name those that have."""
    name = block.get("name") if isinstance(block, Mapping) else None
    if not isinstance(name, str) or name not in registry.names("sampler"):
        return
    for key in NOISE:
        if not block.get(key) or _takes(name, key, registry):
            continue
        able = [other for other in registry.names("sampler") if _takes(other, key, registry)]
        mend = f"use one that has ({', '.join(able)}) or take it out" if able else "take it out"
        raise ConfigError(f"{where}: the plan of sampler '{name}' has no noise for {key} {block[key]}; {mend}")
    refuse_noise(block.get("sampler"), f"{where}.sampler", registry)


def _takes(sampler: str, key: str, registry: Registry) -> bool:
    try:
        signature = registry.entry("sampler", sampler).signature()
    except ConfigError:  # a broken plugin
        return False
    return signature.open or key in signature.names


def check_sampling(parts: StageParts, registry: Registry) -> None:
    """Refuse more steps than the schedule has points, a grid that lies outside of it, and eps where alpha is 0."""
    walk = walk_of(parts, registry)
    schedule = parts.schedule.facts
    _check_time(parts, schedule)
    if not whole(walk.steps):
        return
    if walk.steps < 1:
        raise ConfigError(
            f"stage '{parts.name}': {parts.sampler.label} takes 1 step or more, not {walk.steps}; set steps"
        )
    if continuous(schedule):
        _check_continuous(parts, walk)
    points = points_of(schedule, registry)
    if points is not None and walk.nodes > points and walk.name not in FREE:
        raise ConfigError(
            f"stage '{parts.name}': {parts.sampler.label} is to take {walk.steps} steps and {parts.schedule.label} of "
            f"{parts.network.label} has {points} points; use at most {points - walk.nodes + walk.steps} steps"
        )
    if points is not None and walk.name == "sections":
        _check_sections(parts, walk, points)
    if walk.name in FREE:
        _check_levels(parts, walk, schedule, registry)
    reading = parts.says("parameterization", "")
    if reading in ("eps", "score") and starts_at_zero(parts, registry):
        raise ConfigError(
            f"stage '{parts.name}': {parts.network.label} gives {reading}, which says nothing about the sample at "
            f"alpha = 0, where {parts.schedule.label} ends and {parts.sampler.label} starts; use a grid that starts "
            "below, like leading, or a network trained for v or x0"
        )


def walk_of(parts: StageParts, registry: Registry) -> Walk:
    """The steps, grid and final of a stage, with what the components say where the config says nothing."""
    outer = parts.stage["sampler"]
    inner = outer
    if "sampler" in defaults("sampler", outer["name"], registry):
        inner = outer.get("sampler") or _default("sampler", outer["name"], "sampler", registry) or {}
        inner = {"name": inner} if isinstance(inner, str) else inner
        if inner.get("steps") is not None:
            raise ConfigError(
                f"stage '{parts.name}': {parts.sampler.label} has steps of its own and the sampler '{inner['name']}' "
                f"in it says {inner['steps']}, which would not count; take the inner steps out"
            )
    name = inner.get("name")
    grid = inner.get("grid") or (_default("sampler", name, "grid", registry) if name else None) or {}
    grid = {"name": grid} if isinstance(grid, str) else grid
    final = inner.get("final") or (defaults("sampler", name, registry).get("final") if name else None)
    if grid.get("name"):
        grid = {**defaults("grid", grid["name"], registry), **grid}
    return Walk(steps=parts.sampler["steps"], grid=grid, final=final or "clean")


def _default(kind: str, name: str, argument: str, registry: Registry) -> str | None:
    """The registry's name of the component that an argument has by default, like `Trailing()`."""
    parameters = registry.entry(kind, name).signature().parameters
    text = next((p.default for p in parameters if p.name == argument), None) or ""
    entries = [registry.entry(argument, other) for other in registry.names(argument)]
    return next((e.name for e in entries if f"{e.target}()".endswith(f":{text}")), None)


def continuous(schedule: Mapping[str, Any]) -> bool:
    """Whether this is a schedule of zoo's without points."""
    return schedule["name"] in CONTINUOUS or (schedule["name"] in ("ve", "edm") and schedule.get("steps") is None)


def points_of(schedule: Mapping[str, Any], registry: Registry) -> int | None:
    """How many points a schedule has; None where it is continuous or nobody says."""
    if schedule["name"] == "tabulated":
        return len(schedule["table"])
    if schedule["name"] == "zero-terminal-snr":
        return points_of(written_schedule(schedule["schedule"], registry), registry)
    return schedule["steps"] if whole(schedule.get("steps")) else None


def starts_at_zero(parts: StageParts, registry: Registry) -> bool:
    """Whether a run starts where alpha = 0: the schedule ends there, and the grid has its end."""
    schedule, walk = parts.schedule.facts, walk_of(parts, registry)
    return ends_at_zero(schedule) and parts.stage["interval"][0] == 1.0 and _starts_at_end(schedule, walk, registry)


def ends_at_zero(schedule: Mapping[str, Any]) -> bool:
    """Whether the schedule ends at alpha = 0, pure noise."""
    if schedule["name"] == "tabulated":
        return schedule["table"][-1:] == [1.0]
    return schedule["name"] in ("zero-terminal-snr", "flow")


def _starts_at_end(schedule: Mapping[str, Any], walk: Walk, registry: Registry) -> bool:
    """Whether the first node is the schedule's noisiest; levels between the points never are where that is infinite."""
    points = points_of(schedule, registry)
    if walk.name == "trailing" or points is None or not whole(walk.steps):
        return walk.name == "trailing"
    if walk.name == "linspace":
        return walk.nodes > 1 or points == 1
    if walk.name == "leading":
        return (walk.nodes - 1) * (points // walk.nodes) + walk.grid["offset"] >= points - 1
    if walk.name == "sections":
        return _sections(walk.grid["sections"], points)[-1] == points - 1
    return False


def _check_time(parts: StageParts, schedule: Mapping[str, Any]) -> None:
    told = parts.says("time_input", "index")
    if told in ("index", "index1000") and continuous(schedule):
        raise ConfigError(
            f"stage '{parts.name}': {parts.network.label} is told t as '{told}' and {parts.schedule.label} is "
            "continuous, without points to count; set time_input to t999, sigma or log-sigma-quarter"
        )


def _check_continuous(parts: StageParts, walk: Walk) -> None:
    if walk.name in COUNTED:
        raise ConfigError(
            f"stage '{parts.name}': the grid '{walk.name}' of {parts.sampler.label} counts points, which "
            f"{parts.schedule.label} of {parts.network.label} has not; use the grid trailing or karras"
        )
    if walk.final == "first":
        raise ConfigError(
            f"stage '{parts.name}': {parts.sampler.label} is to end at the first point (final 'first'), and "
            f"{parts.schedule.label} of {parts.network.label} has none; use final 'clean'"
        )
    if walk.name in FREE and walk.name != "table" and walk.grid.get("sigma_min") is None:
        raise ConfigError(
            f"stage '{parts.name}': the grid '{walk.name}' of {parts.sampler.label} ends at the lowest noise, and "
            f"{parts.schedule.label} of {parts.network.label} has none of its own; give the grid a sigma_min"
        )


def _sections(text: str, points: int) -> list[int]:
    """The indices that sections choose, cleanest first (zoo.samplers.grid_tables); empty where they can't."""
    if text.startswith("ddim"):
        count = int(text[4:]) if text[4:].isdecimal() else 0
        stride = next((s for s in range(1, points + 1) if len(range(0, points, s)) == count), None)
        return [] if stride is None else list(range(0, points, stride))
    indices: list[int] = []
    parts, begin = text.split(","), 0
    for k, part in enumerate(parts):
        size = points // len(parts) + (k < points % len(parts))
        count = int(part) if part.strip().isdecimal() else 0
        if not 0 < count <= size:
            return []
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        indices += [begin + round(j * stride) for j in range(count)]
        begin += size
    return indices


def _check_sections(parts: StageParts, walk: Walk, points: int) -> None:
    text = walk.grid["sections"]
    found = _sections(text, points)
    where = f"stage '{parts.name}': the grid's sections '{text}'"
    if not found:
        raise ConfigError(
            f"{where} can't be taken of the {points} points of {parts.schedule.label} of {parts.network.label}; write "
            "counts that fit into its equal parts, like '10,8,6', or a whole stride, like 'ddim25'"
        )
    if len(found) != walk.steps:
        raise ConfigError(
            f"{where} are {len(found)} steps and {parts.sampler.label} is to take {walk.steps}; set steps to "
            f"{len(found)}"
        )


def _check_levels(parts: StageParts, walk: Walk, schedule: Mapping[str, Any], registry: Registry) -> None:
    """Noise levels that a grid names, against the noisiest that its schedule has."""
    where = f"stage '{parts.name}': the grid '{walk.name}' of {parts.sampler.label}"
    of = f"{parts.schedule.label} of {parts.network.label}"
    if walk.name == "table":
        second = _second_level(walk)
        noisiest = None if second is None else _noisiest(schedule, registry)
        if second is not None and noisiest is not None and second >= noisiest:
            raise ConfigError(
                f"{where} has more than one level above the noisiest of {of} (sigma / alpha {noisiest:.4g}); use the "
                "grid karras, which takes the schedule's own levels"
            )
        return
    low, high = walk.grid.get("sigma_min"), walk.grid.get("sigma_max")
    if high is None and ends_at_zero(schedule):
        raise ConfigError(
            f"{where} begins at the noisiest level, which for {of} is infinite (alpha = 0); give the grid a sigma_max, "
            "like 80"
        )
    if low is None and high is None:
        return
    noisiest = inf if ends_at_zero(schedule) else _noisiest(schedule, registry)
    if (low is not None and low <= 0.0) or (low is not None and high is not None and low >= high):
        raise ConfigError(f"{where} needs 0 < sigma_min < sigma_max, not {low} and {high}; mend them")
    if noisiest is not None and max(low or 0.0, high or 0.0) > noisiest * (1.0 + 1e-6):
        raise ConfigError(
            f"{where} goes up to sigma / alpha {max(low or 0.0, high or 0.0):g} and {of} ends at {noisiest:.4g}; leave "
            "sigma_max out to take the schedule's own"
        )


def _second_level(walk: Walk) -> float | None:
    """The second level of a table of sigmas, stretched to the steps; None where it has none or they are wrong."""
    given = walk.grid.get("sigmas")
    if not given or walk.steps < 2 or len(given) < 2 or min(given) <= 0.0:
        return None
    place = (len(given) - 1) / walk.steps
    below = min(int(place), len(given) - 2)
    return exp(log(given[below]) + (place - below) * (log(given[below + 1]) - log(given[below])))


def _noisiest(schedule: Mapping[str, Any], registry: Registry) -> float | None:
    """sigma / alpha where one of zoo's own schedules ends; None for another's, which isn't imported to be asked."""
    target = registry.entry("schedule", schedule["name"]).target
    if not isinstance(target, str) or not target.startswith("zoo.schedules:"):
        return None
    alpha, sigma = _made(written_schedule(schedule, registry), registry)(1.0)
    return float(sigma / alpha) if alpha > 0.0 else inf


def _made(schedule: str | Mapping[str, Any], registry: Registry) -> Any:
    block = {"name": schedule} if isinstance(schedule, str) else schedule
    arguments = {k: _made(v, registry) if k == "schedule" else v for k, v in block.items() if k != "name"}
    return registry.load("schedule", block["name"])(**arguments)
