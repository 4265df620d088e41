"""Every registered sampler, by being listed: counted evaluations, purity, one picture in any batch and reading."""

import pytest
import torch

from tests.samplers.oracle import mixture, oracle, relative, start
from zoo.noise import AddressedNoise, bound
from zoo.parameterization import X0, Flow, V
from zoo.registry import read_registry_file, registry_file
from zoo.schedules import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, VESchedule
from zoo.types import Condition

SHAPE = (2, 3, 3)
DATA = mixture(SHAPE)
ENTRIES = {e.name: e for e in read_registry_file(registry_file()) if e.kind == "sampler"}
SMALL = {"annealed-langevin": {"repeats": 2}, "repaint": {"jump": 2, "resamples": 2}}
SCHEDULES = {
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(),
    "flow": FlowSchedule(),
    "ve": VESchedule(),
    "edm": EDMSchedule(),
}
each_sampler = pytest.mark.parametrize("name", ENTRIES)


def run(name, schedule, *, steps=6, parameterization=None, rows=(0, 1, 2), dtype=torch.float64, **calls):
    sampler = ENTRIES[name].load()(**SMALL.get(name, {}))
    table = sampler.plan(schedule, steps)
    denoiser = oracle(DATA, schedule, X0() if parameterization is None else parameterization)
    x = start(table, (3, *SHAPE), dtype=dtype)[list(rows)]
    before = x.clone()
    noise = bound(AddressedNoise(7), shape=SHAPE, samples=rows)
    end = sampler(denoiser.bind(Condition(), table), table, x, noise=noise, **calls)
    assert torch.equal(x, before)
    assert denoiser.network.calls.__len__() == table.evaluations == len(table)
    return end, table


@each_sampler
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_every_schedule_is_walked_to_its_clean_end(name, schedule, steps):
    reports = []
    end, table = run(name, schedule, steps=steps, callback=reports.append)
    assert bool(torch.isfinite(end).all())
    assert [step.index for step in table.steps] == [r.index for r in reports] == list(range(len(table)))
    assert (table.steps[-1].t_next, table.steps[-1].sigma_next) == (0.0, 0.0)
    assert table.start.t == 1.0


@each_sampler
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_run_ends_among_the_data_wherever_the_schedule_begins(name, schedule):
    # Cosine's first step of nine leads from sigma / alpha = 2e4 to 5. Langevin's dynamics take time, on any schedule.
    end, _ = run(name, schedule, steps=200 if name == "annealed-langevin" else 9)
    assert float(end.abs().max()) < 5.0


@each_sampler
def test_a_sample_is_its_own_in_any_batch_reading_and_precision(name):
    whole, table = run(name, LinearSchedule())
    again, same = run(name, LinearSchedule())
    assert torch.equal(whole, again)
    assert table == same
    assert torch.allclose(run(name, LinearSchedule(), rows=(1,))[0], whole[1:2], rtol=1e-9, atol=1e-9)
    assert torch.allclose(run(name, LinearSchedule(), parameterization=V())[0], whole, rtol=1e-7, atol=1e-7)
    assert relative(run(name, LinearSchedule(), dtype=torch.float32)[0], whole) < 1e-3
    assert run(name, LinearSchedule(), dtype=torch.bfloat16)[0].dtype == torch.float32
    shifted, _ = run(name, LinearSchedule(), after_step=lambda x, step: x + 10.0 * (step.index == len(table) - 1))
    assert torch.equal(shifted, whole + 10.0)
    by_flow, _ = run(name, FlowSchedule(), parameterization=Flow())
    assert torch.allclose(by_flow, run(name, FlowSchedule())[0], rtol=1e-7, atol=1e-7)
