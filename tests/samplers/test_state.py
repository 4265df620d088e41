"""A classifier's gradient folded into x0 is what Bayes says."""

import pytest
import torch

from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import Prediction, Step
from zoo.samplers.ddim import DDIM
from zoo.samplers.state import guided_x0, state_factors, wide


@pytest.mark.parametrize(("alpha", "sigma"), [(0.9, 0.4), (0.1, 0.99), (1.0, 20.0)])
def test_folding_the_score_gives_the_posterior_mean(alpha, sigma):
    # x0 ~ N(m, s^2), a measurement y = x0 + N(0, r^2), x_t = alpha x0 + sigma eps: all Gaussian.
    m, s, r, y = 0.3, 0.7, 0.5, -0.6
    x = torch.linspace(-2.0, 2.0, 5, dtype=torch.float64)
    precision = 1 / s**2 + alpha**2 / sigma**2
    mean = (m / s**2 + alpha * x / sigma**2) / precision
    # y | x_t ~ N(mean, 1 / precision + r^2), and d mean / d x_t = alpha / sigma^2 / precision.
    score = (y - mean) / (1 / precision + r**2) * alpha / sigma**2 / precision
    posterior = (m / s**2 + alpha * x / sigma**2 + y / r**2) / (precision + 1 / r**2)
    step = Step(index=0, t=1.0, alpha=alpha, sigma=sigma, t_next=0.0, alpha_next=1.0, sigma_next=0.0)
    assert torch.allclose(guided_x0(Prediction(x0=mean, score=score), step), posterior, rtol=1e-12)
    assert guided_x0(Prediction(x0=mean), step) is mean


def test_no_score_is_heard_where_nothing_of_the_sample_is_in_x():
    step = Step(index=0, t=1.0, alpha=0.0, sigma=1.0, t_next=0.0, alpha_next=1.0, sigma_next=0.0)
    x0 = torch.ones(2)
    assert guided_x0(Prediction(x0=x0, score=x0), step) is x0


def test_half_precision_is_widened_and_double_is_kept():
    assert [wide(torch.zeros(1, dtype=d)).dtype for d in (torch.float16, torch.float32, torch.float64)] == [
        torch.float32,
        torch.float32,
        torch.float64,
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_are_the_first_coefficients_as_numbers(dtype):
    table = DDIM().plan(LinearSchedule(), 5)
    x = torch.linspace(-1.0, 1.0, 7, dtype=dtype)
    for factor, step in zip(state_factors(table, x), table.steps, strict=True):
        assert torch.equal(torch.mul(x, factor), x * step.coefficients[0])


def test_a_score_in_nearly_pure_noise_is_left_out_and_any_other_folded_in():
    # A classifier's learned gradient doesn't vanish with alpha as a true one does; cosine's first step is at 2e4.
    x0, score = torch.ones(1, 2), torch.full((1, 2), 1e-3)
    for alpha, folded in ((0.0, False), (5e-5, False), (0.0064, True), (0.6, True)):
        sigma = (1.0 - alpha**2) ** 0.5
        step = Step(index=0, t=1.0, alpha=alpha, sigma=sigma, t_next=0.0, alpha_next=1.0, sigma_next=0.0)
        found = guided_x0(Prediction(x0=x0, score=score), step)
        expected = x0 + score * sigma**2 / alpha if folded else x0
        torch.testing.assert_close(found, expected)
