"""Schedules: tables as published, smooth between, and their inverse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import refused
from zoo.diffusion.schedules import (
    CosineSchedule,
    FlowSchedule,
    LinearSchedule,
    QuadraticSchedule,
    ScaledLinearSchedule,
    SigmoidSchedule,
    TabulatedSchedule,
    ZeroTerminalSNR,
)
from zoo.diffusion.types import NoiseSchedule
from zoo.schema.errors import ConfigError, UsageError

SCHEDULES = {
    "linear": LinearSchedule(),
    "scaled-linear": ScaledLinearSchedule(),
    "cosine": CosineSchedule(),
    "cosine-4000": CosineSchedule(steps=4000),
    "quadratic": QuadraticSchedule(),
    "sigmoid": SigmoidSchedule(),
    "linear-20": LinearSchedule(steps=20, beta_start=0.005, beta_end=0.5),
}
each = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@each
def test_points_are_the_cumulative_products_of_the_betas(schedule):
    assert isinstance(schedule, NoiseSchedule)
    assert schedule.alphas_bar.shape == schedule.betas.shape == (schedule.T,)
    alpha, sigma = schedule((np.arange(schedule.T) + 1) / schedule.T)
    assert np.array_equal(alpha, np.sqrt(schedule.alphas_bar))
    assert np.allclose(alpha**2 + sigma**2, 1.0, rtol=0, atol=1e-15)
    running = 1.0
    for beta, alpha_bar in zip(schedule.betas, schedule.alphas_bar, strict=True):
        running *= 1.0 - beta
        assert running == pytest.approx(alpha_bar, rel=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        (LinearSchedule(), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        (ScaledLinearSchedule(), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (CosineSchedule(), {"beta_schedule": "squaredcos_cap_v2"}),
        (QuadraticSchedule(), {"beta_schedule": "scaled_linear", "beta_start": 1e-4, "beta_end": 0.02}),
        (SigmoidSchedule(), {"beta_schedule": "sigmoid", "beta_start": 1e-4, "beta_end": 0.02}),
        (TabulatedSchedule(table=[0.1, 0.3, 0.2, 0.9]), {"trained_betas": [0.1, 0.3, 0.2, 0.9]}),
    ],
)
def test_betas_are_diffusers(schedule, settings):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(**settings)
    assert torch.allclose(torch.from_numpy(schedule.betas.copy()).float(), theirs.betas, rtol=1e-5)
    # diffusers multiplies in float32.
    assert np.allclose(schedule.alphas_bar[:-1], theirs.alphas_cumprod.numpy()[:-1], rtol=1e-3)


def test_known_ends():
    assert LinearSchedule().alphas_bar[-1] == pytest.approx(4.0358e-5, rel=1e-4)
    assert ScaledLinearSchedule()(1.0)[0] == pytest.approx(0.068265, rel=1e-4)
    assert CosineSchedule()(1.0)[0] == pytest.approx(4.928e-5, rel=1e-3)


@each
def test_t_zero_is_clean(schedule):
    assert tuple(float(v) for v in schedule(0.0)) == (1.0, 0.0)


@each
def test_noise_grows_with_t(schedule):
    t = np.linspace(0.0, 1.0, 7 * schedule.T + 3)
    alpha, sigma = schedule(t)
    assert np.all(np.diff(alpha) < 0.0)
    assert np.all(np.diff(sigma[sigma < 1.0 - 1e-9]) > 0.0)


@each
def test_log_ratio_is_linear_in_the_index_between_points(schedule):
    below, middle, above = (schedule((i + 1.0) / schedule.T) for i in (10, 10.5, 11))
    ratios = [float(np.log(sigma / alpha)) for alpha, sigma in (below, middle, above)]
    assert ratios[1] == pytest.approx((ratios[0] + ratios[2]) / 2, rel=1e-9)


@each
def test_alpha_bar_is_linear_below_the_first_point(schedule):
    alpha, _ = schedule(np.array([0.25, 0.5]) / schedule.T)
    missing = 1.0 - schedule.alphas_bar[0]
    assert np.allclose(1.0 - alpha**2, [0.25 * missing, 0.5 * missing], rtol=1e-9)


@given(name=st.sampled_from(sorted(SCHEDULES)), t=st.floats(1e-6, 1.0))
def test_t_comes_back_from_log_snr(name, t):
    schedule = SCHEDULES[name]
    alpha, sigma = schedule(t)
    assert float(schedule.t_from_log_snr(2.0 * np.log(alpha / sigma))) == pytest.approx(t, rel=1e-6)


@each
def test_log_snr_beyond_the_ends_is_an_end(schedule):
    assert schedule.t_from_log_snr(-1e4) == 1.0
    assert schedule.t_from_log_snr(np.inf) == 0.0
    assert 0.0 <= schedule.t_from_log_snr(600.0) < 1e-9


@each
def test_indices_of_points_are_whole(schedule):
    i = np.arange(schedule.T)
    assert np.array_equal(schedule.index_from_t(schedule.t_from_index(i)), i)


@pytest.mark.parametrize("t", [-0.01, 1.01, float("nan"), np.array([0.5, 2.0])])
def test_t_outside_is_refused(t):
    with refused("time-out-of-range", UsageError):
        LinearSchedule()(t)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearSchedule(steps=0),
        lambda: LinearSchedule(beta_start=0.0),
        lambda: LinearSchedule(beta_start=0.03),
        lambda: ScaledLinearSchedule(beta_end=1.0),
        lambda: CosineSchedule(steps=-5),
        lambda: CosineSchedule(offset=-1.0),
        lambda: CosineSchedule(beta_cap=1.0),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_schedules_are_values():
    assert CosineSchedule(steps=10) == CosineSchedule(steps=10) != CosineSchedule(steps=11)
    assert len({CosineSchedule(), CosineSchedule()}) == 1
    with pytest.raises(ValueError, match="read-only"):
        CosineSchedule().betas[0] = 0.0


@pytest.mark.peer
def test_zero_terminal_snr_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    theirs = DDPMScheduler(rescale_betas_zero_snr=True, **settings).alphas_cumprod.numpy()
    ours = ZeroTerminalSNR(schedule=ScaledLinearSchedule())
    assert np.allclose(ours.alphas_bar, theirs, rtol=1e-3, atol=1e-6)
    assert ours.alphas_bar[0] == pytest.approx(ScaledLinearSchedule().alphas_bar[0], rel=1e-12)


@pytest.mark.parametrize("schedule", [ZeroTerminalSNR(schedule=LinearSchedule()), TabulatedSchedule(table=[0.2, 1.0])])
def test_pure_noise_is_reached_smoothly_and_t_comes_back(schedule):
    assert tuple(float(v) for v in schedule(1.0)) == (0.0, 1.0)
    t = 1.0 - np.array([1.4, 1.0, 0.75, 0.5, 0.01]) / schedule.T
    alpha, sigma = schedule(t)
    assert (np.diff(alpha) < 0.0).all()
    assert np.allclose(alpha**2 + sigma**2, 1.0)
    assert np.allclose(alpha[2:] / alpha[1], [0.75, 0.5, 0.01])
    assert np.allclose(schedule.t_from_log_snr(2.0 * np.log(alpha / sigma)), t, rtol=0, atol=1e-9)
    assert float(schedule.t_from_log_snr(-np.inf)) == pytest.approx(1.0)


@pytest.mark.parametrize("table", [[], [0.1, 0.0], [1.0, 0.5], [1.0], [0.1, 1.1]])
def test_betas_that_are_none_are_refused(table):
    with refused("schedule-invalid", ConfigError):
        TabulatedSchedule(table=table)


def test_only_a_table_of_betas_is_rescaled():
    with refused("schedule-not-discrete", ConfigError):
        ZeroTerminalSNR(schedule=FlowSchedule())
