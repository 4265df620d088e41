"""Static thresholding clamps x0 and leaves the rest alone."""

import pytest
import torch

from zoo.errors import ConfigError
from zoo.guidance.threshold import StaticThreshold
from zoo.samplers.ddim import DDIM
from zoo.schedules import LinearSchedule
from zoo.types import Condition, Prediction

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
    with pytest.raises(ConfigError, match="low < high"):
        StaticThreshold(low=1.0, high=1.0)
