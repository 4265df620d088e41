"""Every registered sampler on every registered schedule under every registered parameterization: one trajectory.

What a network says is a matter of the weights; the sampler must not see it. By being listed, a component is in here.
"""

from math import isfinite

import numpy as np
import pytest
import torch

from tests.refusals import refused
from tests.samplers.oracle import Mixture, record_states
from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import Prediction
from zoo.schema.errors import UsageError
from zoo.schema.registry import read_registry_file, registry_file

LISTED = read_registry_file(registry_file())
ARGUMENTS = {
    "tabulated": {"table": list(np.linspace(1e-3, 0.08, 60))},
    "zero-terminal-snr": {"schedule": LinearSchedule()},
    "annealed-langevin": {"repeats": 2},
    "repaint": {"jump": 2, "resamples": 2},
}
CLOSE = 1e-7


def built(kind):
    return {e.name: e.load()(**ARGUMENTS.get(e.name, {})) for e in LISTED if e.kind == kind}


SAMPLERS, SCHEDULES, PARAMETERIZATIONS = built("sampler"), built("schedule"), built("parameterization")
DATA = Mixture(
    weights=torch.tensor([0.4, 0.6], dtype=torch.float64),
    means=torch.tensor([[0.5, -0.7, 0.1], [-0.6, 0.3, 0.8]], dtype=torch.float64),
    deviations=torch.tensor([0.2, 0.4], dtype=torch.float64),
)
RNG = np.random.default_rng(4)
START, NOISE = (torch.from_numpy(RNG.standard_normal(shape)) for shape in ((2, 3), (40, 2, 3)))


def read_as(trained, read):
    """A denoiser that knows the data, whose network speaks `trained` and is read as `read`."""

    def denoise(x, step):
        x0 = DATA.x0(x, step.alpha, step.sigma)
        output = trained.target(x0, (x - step.alpha * x0) / step.sigma, step.alpha, step.sigma)
        c_skip, c_out, _ = read(step.alpha, step.sigma)
        return Prediction(x0=c_skip * x + c_out * output)

    return denoise


def states_of(sampler, table, denoise):
    states = []
    sampler(
        denoise,
        table,
        START * table.start.sigma,
        noise=lambda row, draw=0: NOISE[row],
        after_step=record_states(states),
    )
    return torch.stack(states)


def fits(parameterization, table):
    """eps and score say nothing at alpha = 0, and refuse."""
    try:
        for step in table.steps:
            parameterization(step.alpha, step.sigma)
    except UsageError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_trajectory_is_the_same_whatever_the_network_predicts(name):
    sampler, met = SAMPLERS[name], 0
    for schedule_name, schedule in SCHEDULES.items():
        table = sampler.plan(schedule, 4)
        x0 = PARAMETERIZATIONS["x0"]
        expected = states_of(sampler, table, read_as(x0, x0))
        assert bool(torch.isfinite(expected).all()), schedule_name
        for said, parameterization in PARAMETERIZATIONS.items():
            if fits(parameterization, table):
                found = states_of(sampler, table, read_as(parameterization, parameterization))
                assert torch.allclose(found, expected, rtol=CLOSE, atol=CLOSE), (schedule_name, said)
                met += 1
    # All but the two that say nothing where a schedule ends at alpha = 0.
    assert met >= len(SCHEDULES) * len(PARAMETERIZATIONS) - 2 * 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_network_read_as_what_it_is_not_is_seen(name):
    table = SAMPLERS[name].plan(SCHEDULES["cosine"], 4)
    v, eps = PARAMETERIZATIONS["v"], PARAMETERIZATIONS["eps"]
    expected = states_of(SAMPLERS[name], table, read_as(v, v))
    assert not torch.allclose(states_of(SAMPLERS[name], table, read_as(v, eps)), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 37, 1000])
def test_any_number_of_steps_is_walked_to_a_clean_end(name, steps):
    schedule = SCHEDULES["linear"]
    table = SAMPLERS[name].plan(schedule, steps)
    x0 = PARAMETERIZATIONS["x0"]
    end = SAMPLERS[name](
        read_as(x0, x0), table, START * table.start.sigma, noise=lambda row, draw=0: NOISE[row % len(NOISE)]
    )
    assert table.steps[-1].sigma_next == 0.0
    # Langevin's dynamics are far from done after two or three levels.
    assert float(end.abs().max()) < (50.0 if name == "annealed-langevin" else 5.0)
    assert all(np.isfinite(step.coefficients).all() for step in table.steps)


COUNTS = (1, 2, 3, 5, 7, 10, 27, 36, 50, 100, 250, 999)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_any_number_of_steps_has_a_finite_plan_that_joins_up(name):
    last = 0
    for steps in COUNTS:
        table = SAMPLERS[name].plan(SCHEDULES["zero-terminal-snr"], steps)
        assert table.evaluations == len(table) > last
        last = len(table)
        assert (table.start.t, table.steps[-1].t_next, table.steps[-1].sigma_next) == (1.0, 0.0, 0.0)
        assert all(isfinite(weight) for row in table.steps for weight in row.coefficients)
        assert all(0.0 <= row.t_next <= 1.0 for row in table.steps)


def test_more_steps_than_a_schedule_has_points_are_refused():
    with refused("steps-too-many", naming="1001"):
        SAMPLERS["ddim"].plan(SCHEDULES["linear"], 1001)
