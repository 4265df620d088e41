"""A limited interval follows its guidance inside and asks the plain denoiser outside."""

import pytest
import torch

from zoo.errors import ConfigError
from zoo.guidance.interval import LimitedInterval
from zoo.guidance.threshold import StaticThreshold
from zoo.types import Condition, Prediction, Step, StepTable


def step(alpha, sigma):
    return Step(index=0, t=0.5, alpha=alpha, sigma=sigma, t_next=0.0, alpha_next=1.0, sigma_next=0.0)


@pytest.mark.parametrize(
    ("alpha", "sigma", "inside"),
    [(1.0, 0.5, False), (1.0, 0.6, True), (0.5, 0.3, True), (1.0, 2.0, True), (0.5, 1.1, False), (0.0, 1.0, False)],
)
def test_the_guidance_is_followed_between_low_and_high_only(alpha, sigma, inside):
    def inner(x, step):
        return Prediction(x0=3.0 * x)

    limited = LimitedInterval(guidance=StaticThreshold(), low=0.5, high=2.0).wrap(
        inner, denoiser=None, cond=Condition(), null=None, table=StepTable(())
    )
    x0 = limited(torch.ones(1, 1), step(alpha, sigma)).x0
    assert float(x0) == (1.0 if inside else 3.0)


def test_an_open_interval_holds_pure_noise_too():
    limited = LimitedInterval(guidance=StaticThreshold()).wrap(
        lambda x, step: Prediction(x0=3.0 * x), denoiser=None, cond=Condition(), null=None, table=StepTable(())
    )
    assert float(limited(torch.ones(1, 1), step(0.0, 1.0)).x0) == 1.0


def test_an_empty_interval_is_refused():
    with pytest.raises(ConfigError, match="low < high"):
        LimitedInterval(guidance=StaticThreshold(), low=2.0, high=2.0)
