"""Autoguidance goes from a weaker network through the stronger one, however each of them puts it."""

import pytest
import torch

from tests.guidance.test_classifier_free import guided as classifier_free
from tests.guidance.test_classifier_free import labels
from tests.refusals import refused
from tests.samplers.oracle import mixture, no_noise, oracle, start
from zoo.diffusion.parameterization import X0, Eps, V
from zoo.diffusion.schedules import CosineSchedule, LinearSchedule
from zoo.diffusion.types import Condition
from zoo.guidance.autoguidance import Autoguidance
from zoo.guidance.interval import LimitedInterval
from zoo.guidance.rescale import Rescale
from zoo.samplers.ddim import DDIM
from zoo.samplers.heun import Heun

SHAPE = (2, 3, 3)
SCHEDULE = LinearSchedule()
STRONG, WEAK = mixture(SHAPE, seed=1), mixture(SHAPE, seed=2)
TABLE = DDIM().plan(SCHEDULE, 6)
X = start(TABLE, (3, *SHAPE))


def wrapped(scale, *, parameterization=None, schedule=SCHEDULE, inner=None, table=TABLE):
    strong, weak = oracle(STRONG, SCHEDULE, V()), oracle(WEAK, schedule, parameterization or V())
    guidance = Autoguidance(denoiser=weak, scale=scale)
    denoise = strong.bind(Condition(), table) if inner is None else inner
    made = guidance.wrap(denoise, denoiser=strong, cond=Condition(), null=None, table=table)
    return made, weak.network


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("parameterization", [X0(), Eps(), V()])
def test_the_estimate_goes_from_the_weak_through_the_strong(scale, parameterization):
    step = TABLE.steps[2]
    strong, weak = (m.x0(X, step.alpha, step.sigma) for m in (STRONG, WEAK))
    made = wrapped(scale, parameterization=parameterization)[0](X, step)
    torch.testing.assert_close(made.x0, weak + scale * (strong - weak), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made.x0_cond, strong, rtol=1e-9, atol=1e-9)


def test_it_costs_one_call_of_the_weaker_network_a_row_and_none_at_scale_1_or_outside_an_interval():
    table = Heun().plan(SCHEDULE, 4)
    for scale, calls in ((2.0, len(table)), (1.0, 0)):
        denoise, weak = wrapped(scale, table=table)
        Heun()(denoise, table, start(table, (3, *SHAPE)), noise=no_noise)
        assert len(weak.calls) == calls
    strong, weak = oracle(STRONG, SCHEDULE, V()), oracle(WEAK, SCHEDULE, V())
    limited = LimitedInterval(guidance=Autoguidance(denoiser=weak), low=1.0).wrap(
        strong.bind(Condition(), TABLE), denoiser=strong, cond=Condition(), null=None, table=TABLE
    )
    DDIM()(limited, TABLE, X, noise=no_noise)
    assert len(weak.network.calls) == sum(step.sigma > step.alpha for step in TABLE.steps) < len(TABLE)


def test_over_classifier_free_guidance_both_directions_add_up():
    step = TABLE.steps[2]
    inner = classifier_free(4.0)[0]
    made = wrapped(3.0, inner=inner)[0](X, step)
    cond = classifier_free(1.0)[0](X, step).x0
    weak = WEAK.x0(X, step.alpha, step.sigma)
    torch.testing.assert_close(made.x0, inner(X, step).x0 + 2.0 * (cond - weak), rtol=1e-9, atol=1e-9)
    tamed = Rescale(space="x0", strength=1.0).wrap(
        wrapped(3.0, inner=inner)[0], denoiser=None, cond=labels(1), null=None, table=TABLE
    )
    deviations = [x0.flatten(1).std(dim=1) for x0 in (tamed(X, step).x0, cond)]
    torch.testing.assert_close(*deviations, rtol=1e-9, atol=0.0)


def test_a_weaker_network_of_another_schedule_is_refused():
    with refused("schedule-unfit"):
        wrapped(2.0, schedule=CosineSchedule())
