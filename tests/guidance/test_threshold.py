"""Thresholding holds x0 in its range and leaves the rest alone."""

import pytest
import torch

from tests.refusals import refused
from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import Condition, Prediction
from zoo.guidance.threshold import DynamicThreshold, StaticThreshold
from zoo.samplers.ddim import DDIM
from zoo.schema.errors import ConfigError

TABLE = DDIM().plan(LinearSchedule(), 3)


def test_x0_is_clamped_and_the_rest_is_left():
    x0, logit = torch.tensor([[-3.0, -0.5, 0.2, 4.0]]), torch.tensor([[9.0]])

    def inner(x, step):
        return Prediction(x0=x0, variance_logit=logit, score=logit)

    wrapped = StaticThreshold(low=-1.0, high=0.1).wrap(inner, denoiser=None, cond=Condition(), null=None, table=TABLE)
    prediction = wrapped(x0, TABLE.steps[0])
    assert torch.allclose(prediction.x0, torch.tensor([[-1.0, -0.5, 0.1, 0.1]]))
    assert torch.equal(prediction.variance_logit, logit)
    assert torch.equal(prediction.score, logit)
    assert x0[0, 0] == -3.0


def test_an_empty_range_is_refused():
    with refused("bounds-reversed", ConfigError):
        StaticThreshold(low=1.0, high=1.0)


def dynamic(x0, percentile):
    def inner(x, step):
        return Prediction(x0=x0, score=x)

    wrapped = DynamicThreshold(percentile=percentile).wrap(
        inner, denoiser=None, cond=Condition(), null=None, table=TABLE
    )
    return wrapped(x0, TABLE.steps[0])


@pytest.mark.peer
@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_thresholding_is_that_of_diffusers(percentile):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=1e6)
    x0 = 3.0 * torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    x0[1] *= 0.1
    prediction = dynamic(x0, percentile)
    torch.testing.assert_close(prediction.x0, scheduler._threshold_sample(x0))
    assert torch.equal(prediction.score, x0)
    assert float(prediction.x0.abs().max()) <= 1.0


def test_a_sample_within_the_range_is_left_and_each_has_its_own_percentile():
    x0 = torch.stack([torch.linspace(-0.9, 0.9, 10), torch.linspace(-4.0, 4.0, 10)])
    made = dynamic(x0, 1.0).x0
    assert torch.equal(made[0], x0[0])
    torch.testing.assert_close(made[1], x0[1] / 4.0)


@pytest.mark.parametrize("percentile", [0.0, 1.1])
def test_a_percentile_outside_is_refused(percentile):
    with refused("number-out-of-range", ConfigError, naming="percentile"):
        DynamicThreshold(percentile=percentile)
