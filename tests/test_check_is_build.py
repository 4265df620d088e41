"""`zoo check` passes exactly what can be built and drawn with: what it refuses fails when it is forced."""

from __future__ import annotations

from typing import Any

import pytest

import zoo
from tests.config import forced
from tests.config.test_incompatible import pixels
from tests.refusals import refused
from zoo.schema.errors import ZooError
from zoo.schema.registry import registry

TINY = {
    "name": "unet", "in_channels": 3, "out_channels": 3, "width": 32, "mult": [1], "blocks": 1, "attention": "plain",
    "attention_levels": [], "context_width": None, "groups": 8, "heads": 4,
}  # fmt: skip
SCHEDULES: dict[str, Any] = {
    "zero-terminal-snr": {"name": "zero-terminal-snr", "schedule": "linear"},
    "tabulated": {"name": "tabulated", "table": [0.1, 0.2, 0.5, 1.0]},
    **{f"{name} of points": {"name": name, "steps": 12} for name in ("ve", "edm")},
}
SCHEDULES |= {name: name for name in registry().names("schedule") if name not in SCHEDULES}
TIMES = ("index", "index1000", "t999", "sigma", "log-sigma-quarter")
GRIDS: dict[str, Any] = {
    "sections": {"name": "sections", "sections": "1,1"},
    "levels": {"name": "table", "sigmas": [40.0, 3.0, 0.5]},
    "as many levels as steps": {"name": "table", "sigmas": [40.0, 0.5]},
    "skipping": {"name": "linspace", "skip_cleanest": True},
    "below": {"name": "karras", "sigma_min": 1e-4, "sigma_max": 2.0},
    "within": {"name": "log-snr", "sigma_min": 0.1, "sigma_max": 2.0},
}
GRIDS |= {name: name for name in registry().names("grid") if name != "sections"}


def drawn(config: dict[str, Any]) -> bool:
    """Whether the config, unchecked but for its form, is built and draws."""
    try:
        forced.built(config)()
    except ZooError:
        return False
    return True


def passes(config: dict[str, Any]) -> bool:
    try:
        zoo.check(config)
    except ZooError:
        return False
    return True


def of(schedule: str, reading: str = "v", time: str = "t999", **sampler: Any) -> dict[str, Any]:
    return pixels(
        SCHEDULES[schedule], reading, network=TINY, time=time, size=8, sampler={"name": "ddim", "steps": 2, **sampler}
    )


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_check_passes_what_draws_two_steps(schedule):
    seen = []
    for name in registry().names("sampler"):
        small = {"repeats": 2} if name == "annealed-langevin" else {}
        seen.append(of(schedule, name=name, **small))
    for reading in registry().names("parameterization"):
        seen += [of(schedule, reading, grid=grid) for grid in ("trailing", "leading")]
    for time in TIMES:
        seen += [of(schedule, time=time), of(schedule, time=time, grid="leading")]
    for grid in GRIDS.values():
        seen += [of(schedule, grid=grid, final=final) for final in ("clean", "first")]
    verdicts = []
    for config in seen:
        verdicts.append(passes(config))
        assert verdicts[-1] == drawn(config), config["stages"][0]
    assert set(verdicts) == {True, False}


@pytest.mark.slow
def test_a_run_that_no_memory_holds_is_refused_before_it_is_planned():
    for sampler in (
        {"name": "ddim", "steps": 10**15}, {"name": "annealed-langevin", "repeats": 10**12},
        {"name": "predictor-corrector", "corrections": 10**12}, {"name": "repaint", "resamples": 10**5},
    ):  # fmt: skip
        with refused("steps-too-many", naming="100000"):
            zoo.check(of("flow", **{"steps": 30, **sampler}))
    with refused("schedule-invalid", naming="a schedule needs 1 to 1000000 points"):
        zoo.check({**of("linear"), "stages": [{**of("linear")["stages"][0], "denoiser": {
            "network": TINY, "schedule": {"name": "linear", "steps": 10**12}, "parameterization": "v"}}]})  # fmt: skip
