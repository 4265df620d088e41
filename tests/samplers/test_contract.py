"""Every registered sampler, by being listed: what zoo.conformance asks of any, and that ours start where noise is."""

import pytest
import torch

from tests.samplers.oracle import start
from zoo.conformance import examine
from zoo.conformance.samplers import SCHEDULES, SHAPE, draw
from zoo.registry import read_registry_file, registry_file

ENTRIES = {e.name: e for e in read_registry_file(registry_file()) if e.kind == "sampler"}
SMALL = {"annealed-langevin": {"repeats": 2}, "repaint": {"jump": 2, "resamples": 2}}
SLOW_TO_ARRIVE = {"annealed-langevin"}  # Langevin's dynamics take time, on any schedule
each_sampler = pytest.mark.parametrize("name", ENTRIES)


@each_sampler
def test_it_keeps_what_samplers_promise(name):
    report = examine("sampler", ENTRIES[name].load(), name=name, **SMALL.get(name, {}))
    assert report.ok, report
    outcomes = {o.check: o for o in report.outcomes}
    assert {n for n, o in outcomes.items() if o.state == "not asked"} <= {"order"}
    assert outcomes["readings"].said == "x0, eps, v, flow, score, edm"
    # Cosine's first step of nine leads from sigma / alpha = 2e4 to 5.
    assert outcomes["arrives"].said == "" or name in SLOW_TO_ARRIVE


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
