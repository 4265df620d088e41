"""RePaint's walk against diffusers' list of timesteps, and that a jump leads to the noise of its level."""

from itertools import pairwise

import pytest
import torch
from diffusers import RePaintScheduler

from zoo.errors import ConfigError
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid import Leading
from zoo.samplers.repaint import RePaint
from zoo.schedules import CosineSchedule, LinearSchedule, VESchedule
from zoo.types import Prediction


@pytest.mark.parametrize(
    ("steps", "jump", "resamples"), [(50, 10, 10), (25, 4, 3), (10, 10, 10), (20, 1, 2), (7, 2, 1)]
)
def test_the_walk_is_that_of_diffusers(steps, jump, resamples):
    scheduler = RePaintScheduler()
    scheduler.set_timesteps(steps, jump_length=jump, jump_n_sample=resamples)
    theirs = scheduler.timesteps.tolist()
    # Its pipeline evaluates where t went down, and noises where it went up.
    evaluated = [t for last, t in pairwise([theirs[0] + 1, *theirs]) if t < last]
    schedule = LinearSchedule()
    table = RePaint(jump=jump, resamples=resamples, grid=Leading(offset=0)).plan(schedule, steps)
    assert [round(step.t * 1000) - 1 for step in table.steps] == evaluated
    assert any(step.coefficients[4] > 0.0 for step in table.steps) == (resamples > 1 and steps > jump)


@pytest.mark.parametrize("schedule", [CosineSchedule(), VESchedule()], ids=["cosine", "ve"])
def test_every_state_has_the_noise_of_its_level_after_jumps_too(schedule):
    table = RePaint(jump=3, resamples=3).plan(schedule, 12)
    generator = torch.Generator().manual_seed(0)

    def noise(step, draw=0):
        return torch.randn(4000, 1, generator=generator, dtype=torch.float64)

    def denoise(x, step):  # data of one point: what is known of a picture
        spread = float((x - 0.7 * step.alpha).std())
        assert spread == pytest.approx(step.sigma, rel=0.06)
        return Prediction(x0=torch.full_like(x, 0.7))

    x = 0.7 * table.start.alpha + table.start.sigma * noise(0)
    end = RePaint()(denoise, table, x, noise=noise)
    assert torch.equal(end, torch.full_like(end, 0.7))


def test_without_going_back_it_is_ancestral_sampling():
    ours, ddim = RePaint(resamples=1).plan(LinearSchedule(), 30), DDIM(eta=1.0).plan(LinearSchedule(), 30)
    for one, other in zip(ours.steps, ddim.steps, strict=True):
        assert one.coefficients[:3] == pytest.approx(other.coefficients, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("wrong", [{"jump": 0}, {"resamples": 0}])
def test_what_is_no_walk_is_refused(wrong):
    with pytest.raises(ConfigError, match="from 1 up"):
        RePaint(**wrong)
