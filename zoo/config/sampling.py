"""Whether a sampler fits the schedule that its network was trained under: a part of the contract.

The run is planned here before any weight is read: schedule, grid and sampler are made from their blocks,
which takes numpy and no torch, and what they refuse is what `zoo check` refuses. The plan's rows say the rest: how many
network evaluations a run takes, and whether it starts where alpha is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from zoo.config.blocks import make
from zoo.config.parts import StageParts
from zoo.schema.errors import ConfigError, ZooError
from zoo.schema.registry import Registry

if TYPE_CHECKING:
    from zoo.diffusion.types import StepTable

NOISE = ("eta", "s_churn", "s_noise")  # arguments by which samplers add noise


def refuse_noise(block: Any, where: str, registry: Registry) -> None:
    """Refuse ancestral noise requested of a sampler that adds none, and name those that do."""
    name = block.get("name") if isinstance(block, Mapping) else None
    if not isinstance(name, str) or name not in registry.names("sampler"):
        return
    for key in NOISE:
        if not block.get(key) or _takes(name, key, registry):
            continue
        able = [other for other in registry.names("sampler") if _takes(other, key, registry)]
        mend = f"use one that has ({', '.join(able)}) or take it out" if able else "take it out"
        raise ConfigError(
            f"{where}: the plan of sampler '{name}' has no noise for {key} {block[key]}; {mend}",
            code="plan-without-noise",
        )
    refuse_noise(block.get("sampler"), f"{where}.sampler", registry)


def _takes(sampler: str, key: str, registry: Registry) -> bool:
    try:
        signature = registry.entry("sampler", sampler).signature()
    except ConfigError:  # a broken plugin
        return False
    return signature.open or key in signature.names


def plan_of(stage: Mapping[str, Any], schedule: Any, registry: Registry) -> StepTable:
    """The table of a stage's run on a schedule (a block or an object); raises what its components raise."""
    made = schedule if callable(schedule) else make("schedule", schedule, registry)
    interval = stage.get("interval") or (1.0, 0.0)
    return make("sampler", stage["sampler"], registry).plan(made, interval=(interval[0], interval[1]))


def check_sampling(parts: StageParts, registry: Registry) -> StepTable:
    """The table of a stage's run; ConfigError where it has none, or the network can't be read at one of its rows."""
    stage, network = f"stage '{parts.name}'", parts.network.label
    inner = parts.stage["sampler"].get("sampler")
    if isinstance(inner, Mapping) and inner.get("steps") is not None:
        raise ConfigError(
            f"{stage}: {parts.sampler.label} has steps of its own and the sampler '{inner['name']}' in it says "
            f"{inner['steps']}, which would not count; take the inner steps out",
            code="inner-steps-given",
        )
    schedule = _made("schedule", parts.denoiser["schedule"], f"{stage}: {parts.schedule.label} of {network}", registry)
    told, reading = parts.says("time_input", "index"), parts.says("parameterization", "")
    if told in ("index", "index1000") and schedule.T is None:
        raise ConfigError(
            f"{stage}: {network} is told t as '{told}' and {parts.schedule.label} is continuous, without points to "
            "count; set time_input to t999, sigma or log-sigma-quarter",
            code="time-input-unfit",
        )
    grid = (inner if isinstance(inner, Mapping) else parts.stage["sampler"]).get("grid")
    walk = f"{parts.sampler.label} with grid '{grid['name']}'" if isinstance(grid, Mapping) else parts.sampler.label
    on = f"{stage}: {walk} on {parts.schedule.label} of {network}"
    try:
        table = plan_of(parts.stage, schedule, registry)
    except Exception as error:  # a plugin may raise anything
        raise _refused(on, error) from error
    read = _made(
        "parameterization", parts.denoiser["parameterization"], f"{stage}: parameterization '{reading}' of {network}",
        registry,
    )  # fmt: skip
    for step in table.steps:
        if step.alpha == 0.0:
            _check_at_noise(parts, read, reading, told, step.sigma)
            break
    if parts.low_res is not None and parts.low_res["schedule"] is not None:
        _made("schedule", parts.low_res["schedule"], f"{stage}: the schedule of {parts.low_res.label}", registry)
    if parts.stage.get("step_cache"):
        _check_cache(parts, registry)
    return table


def _made(kind: str, block: Any, what: str, registry: Registry) -> Any:
    try:
        return make(kind, block, registry)
    except Exception as error:
        raise _refused(what, error) from error


def _refused(what: str, error: Exception) -> ConfigError:
    if isinstance(error, ZooError):
        return ConfigError(f"{what}: {error}", code=error.code)
    return ConfigError(
        f"{what} can't be made ({type(error).__name__}: {error}); use another", code="component-not-made"
    )


def _check_at_noise(parts: StageParts, read: Any, reading: str, told: str, sigma: float) -> None:
    """At pure noise: whether the network's output determines x0, and its t is finite."""
    stage, network = f"stage '{parts.name}'", parts.network.label
    where = f"at alpha = 0, where {parts.schedule.label} ends and {parts.sampler.label} starts"
    try:
        says = all(isfinite(number) for number in read(0.0, sigma))
    except (ZooError, ArithmeticError):
        says = False
    if not says:
        raise ConfigError(
            f"{stage}: {network} gives {reading}, which says nothing about the sample {where}; use a grid that starts "
            "below, like leading, or a network trained for v or x0",
            code="alpha-zero-undefined",
        )
    if told in ("sigma", "log-sigma-quarter"):
        raise ConfigError(
            f"{stage}: {network} is told t as '{told}', which is infinite {where}; use a grid that starts below, like "
            "karras with a sigma_max, or set time_input to t999",
            code="alpha-zero-undefined",
        )


def _check_cache(parts: StageParts, registry: Registry) -> None:
    block = parts.stage["step_cache"]
    label = f"step_cache '{block['name']}'"
    cache = _made("step_cache", block, f"stage '{parts.name}': {label}", registry)
    methods = parts.network["methods"]
    missing = [name for name in getattr(cache, "calls", ()) if methods is not None and name not in methods]
    if missing:
        raise ConfigError(
            f"stage '{parts.name}': {label} cuts a network in two, and {parts.network.label} has no {missing[0]}; take "
            "the step_cache out",
            code="step-cache-unfit",
        )
