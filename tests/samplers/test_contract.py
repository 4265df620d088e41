"""Every registered sampler, by being listed: what zoo.conformance asks of any, and that ours start where noise is."""

import math

import pytest
import torch

import zoo
from tests.refusals import refused
from tests.samplers.oracle import start
from zoo.conformance import examine
from zoo.conformance.samplers import SCHEDULES, SHAPE, draw
from zoo.diffusion.schedules import LinearSchedule
from zoo.samplers.langevin import AnnealedLangevin
from zoo.schema.registry import read_registry_file, registry_file

ENTRIES = {e.name: e for e in read_registry_file(registry_file()) if e.kind == "sampler"}
SMALL = {"annealed-langevin": {"repeats": 2}, "repaint": {"jump": 2, "resamples": 2}}
SLOW_TO_ARRIVE = {"annealed-langevin"}  # Langevin's dynamics take time, on any schedule
each_sampler = pytest.mark.parametrize("name", ENTRIES)


@pytest.mark.slow
@each_sampler
def test_it_keeps_what_samplers_promise(name):
    report = examine("sampler", ENTRIES[name].load(), name=name, **SMALL.get(name, {}))
    assert report.ok, report
    outcomes = {o.check: o for o in report.outcomes}
    assert {n for n, o in outcomes.items() if o.state == "not asked"} <= {"order"}
    assert outcomes["readings"].said == "x0, eps, v, flow, score, edm"
    # Cosine's first step of nine leads from sigma / alpha = 2e4 to 5.
    assert outcomes["arrives"].said == "" or name in SLOW_TO_ARRIVE


@pytest.mark.slow
@each_sampler
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_every_schedule_is_walked_from_its_noisiest_point_to_its_clean_end(name, schedule, steps):
    sampler = ENTRIES[name].load()(**SMALL.get(name, {}))
    table = sampler.plan(schedule, steps)
    assert table.start.t == 1.0
    assert (table.steps[-1].t_next, table.steps[-1].sigma_next) == (0.0, 0.0)
    assert [step.index for step in table.steps] == list(range(len(table)))


@each_sampler
def test_a_run_is_counted_kept_and_finite_in_two_steps(name):
    sampler = ENTRIES[name].load()(**SMALL.get(name, {}))
    for schedule in SCHEDULES.values():
        drawn = draw(sampler, sampler.plan(schedule, 2), schedule)
        assert drawn.kept
        assert drawn.evaluations == len(drawn.table) == len(drawn.reports)
        assert bool(torch.isfinite(drawn.end).all())
        assert torch.equal(drawn.reports[0].x_t, start(drawn.table, (3, *SHAPE))) or drawn.table.begin is not None


@pytest.mark.parametrize(
    ("sampler", "refusal"),
    [
        ({"name": "predictor-corrector", "snr": 1e9}, "number-out-of-range: snr"),
        ({"name": "predictor-corrector", "snr": 0.0}, "number-out-of-range: snr"),
        ({"name": "predictor-corrector", "snr": 1e300}, "argument-type-wrong: 1e"),
        ({"name": "dpmpp-2m-sde", "eta": 1e9}, "eta-out-of-range: 1000000000"),
        ({"name": "edm", "s_noise": 1e9}, "number-out-of-range: s_noise"),
        ({"name": "edm", "s_churn": -1.0}, "number-out-of-range: s_churn"),
        ({"name": "edm", "s_min": -1.0}, "number-out-of-range: s_min"),
        ({"name": "edm", "s_min": math.inf}, "config-not-finite: s_min"),
        ({"name": "annealed-langevin", "repeats": 10**9}, "steps-too-many"),
        ({"name": "ddim", "grid": {"name": "leading", "offset": 10**9}}, "offset-beyond-schedule: offset"),
        ({"name": "ddim", "grid": {"name": "karras", "rho": 1e9}}, "number-out-of-range: rho"),
    ],
)  # fmt: skip
def test_settings_that_no_run_can_mean_are_refused_by_a_check(sampler, refusal):
    network = {
        "name": "unet", "in_channels": 3, "out_channels": 3, "attention": "plain", "heads": 4, "context_width": None,
    }  # fmt: skip
    denoiser = {"network": network, "schedule": "linear", "parameterization": "v"}
    sampler = {**sampler, **({"steps": 5} if sampler["name"] != "predictor-corrector" else {"corrections": 5})}
    stage = {"name": "base", "size": 64, "denoiser": denoiser, "sampler": sampler}
    with refused(refusal):
        zoo.check({"schema": "zoo.pipeline/1", "stages": [stage]})


def test_a_run_of_too_many_evaluations_is_refused_before_any_row_of_it_is_made(monkeypatch):
    def made(*_, **__):
        raise AssertionError("a row was made")

    monkeypatch.setattr("zoo.samplers.linear.Rows.look", made)
    with refused("steps-too-many"):
        AnnealedLangevin(repeats=10**6).plan(LinearSchedule(), 10)
