"""Draws of t have the density they name, don't depend on how a batch is split, and importance learns."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.refusals import refused
from tests.training.toy import batch, share
from zoo.diffusion.schedules import CosineSchedule, EDMSchedule, FlowSchedule
from zoo.schema.errors import ConfigError, WeightsError
from zoo.training.objectives.timesteps import Importance, draw_of

DRAWS = {
    "uniform": (FlowSchedule(), lambda t: t),
    "logit-normal": (FlowSchedule(), lambda t: stats.norm.cdf(np.log(t / (1 - t)))),
    "log-normal": (EDMSchedule(), lambda t: stats.norm.cdf((np.log(EDMSchedule()(t)[1]) + 1.2) / 1.2)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_has_its_density_in_equal_shares(name):
    schedule, distribution = DRAWS[name]
    t, weight = draw_of(name, schedule, mean=None, deviation=None)(batch(400))
    assert (weight == 1.0).all()
    found = np.sort(distribution(t))
    # One number in each of 400 equal shares of probability.
    assert np.array_equal(np.floor(np.clip(found, 0, 1 - 1e-9) * 400), np.arange(400))


@pytest.mark.parametrize("name", [*DRAWS, "importance"])
def test_on_a_discrete_schedule_t_is_a_point_and_a_split_batch_draws_the_same(name):
    draw = draw_of(name, CosineSchedule(steps=50), mean=None, deviation=None)
    whole = batch(32)
    t, _ = draw(whole)
    assert np.allclose(t * 50, np.round(t * 50), atol=1e-9)
    assert ((t > 0) & (t <= 1)).all()
    parts = [draw(share(whole, np.arange(start, start + 8)))[0] for start in range(0, 32, 8)]
    assert np.array_equal(np.concatenate(parts), t)


def test_uniform_draws_are_those_that_runs_were_made_with():
    # (place + u) / batch on the points of the schedule; runs that are resumed depend on it.
    whole = batch(16)
    t, _ = draw_of("uniform", CosineSchedule(), mean=None, deviation=None)(whole)
    u = whole.uniform("t")
    assert np.array_equal(t, (np.floor((np.arange(16) + u) / 16 * 1000) + 1) / 1000)


def teach(draw, steps=60, size=40):
    """Losses that grow with t, for some steps."""
    for step in range(steps):
        whole = batch(size, step=step)
        t, _ = draw(whole)
        draw.record(whole, t, torch.from_numpy(0.1 + t))
    draw.state()
    return draw


def test_importance_goes_where_the_loss_is_and_its_weights_make_up_for_it():
    draw = teach(Importance(CosineSchedule(steps=10)))
    density = draw.density()
    t = (np.arange(10) + 1) / 10
    assert np.allclose(density, 0.999 * (0.1 + t) / (0.1 + t).sum() + 0.001 / 10)
    drawn, weight = draw(batch(2000, step=99))
    index = np.round(drawn * 10).astype(int) - 1
    assert np.allclose(np.bincount(index, minlength=10) / 2000, density, atol=1e-3)
    # Unbiased: the weighted mean of any function of t is its plain mean.
    assert np.mean(weight * drawn**2) == pytest.approx(np.mean(t**2), rel=0.01)


def test_importance_is_uniform_until_every_point_is_known():
    draw = Importance(CosineSchedule(steps=10))
    _, weight = draw(batch(20))
    assert np.allclose(weight, 1.0)


@pytest.mark.slow
def test_a_splits_losses_count_from_the_next_step_on_and_equal_the_wholes():
    whole_draw, split_draw = teach(Importance(CosineSchedule(steps=10))), teach(Importance(CosineSchedule(steps=10)))
    for step in (60, 61):
        whole = batch(40, step=step)
        t, _ = whole_draw(whole)
        whole_draw.record(whole, t, torch.from_numpy(t**2))
        parts = []
        for start in (1, 0):  # in any order: other processes' come when they come
            part = share(whole, np.arange(start, 40, 2))
            found, _ = split_draw(part)
            split_draw.record(part, found, torch.from_numpy(found**2))
            parts.append(found)
        assert np.array_equal(np.stack(parts[::-1], axis=1).flatten(), t)
    assert all(torch.equal(v, split_draw.state()[k]) for k, v in whole_draw.state().items())


def test_history_is_state_and_validation_leaves_it_alone():
    draw = teach(Importance(CosineSchedule(steps=10)))
    again = Importance(CosineSchedule(steps=10))
    again.load_state(draw.state())
    assert np.array_equal(again.density(), draw.density())
    before = draw.density()
    checked = batch(8, training=False)
    t, weight = draw(checked)
    draw.record(checked, t, torch.full((8,), 100.0))
    assert np.array_equal(draw.density(), before)
    assert np.allclose(weight, 1.0)
    with refused("run-of-another-recipe", WeightsError):
        Importance(CosineSchedule(steps=9)).load_state(draw.state())


def test_a_loss_that_overflowed_is_no_history():
    draw = teach(Importance(CosineSchedule(steps=10)))
    whole = batch(10, step=99)
    t, _ = draw(whole)
    draw.record(whole, t, torch.full((10,), math.inf))
    draw.state()
    assert np.isfinite(draw.density()).all()


def test_impossible_draws_are_refused():
    with refused("schedule-not-discrete", ConfigError):
        draw_of("importance", FlowSchedule(), mean=None, deviation=None)
    with refused("arguments-conflict", naming="time_mean"):
        draw_of("uniform", FlowSchedule(), mean=1.0, deviation=None)
    with refused("number-out-of-range", ConfigError, naming="time_deviation"):
        draw_of("log-normal", EDMSchedule(), mean=None, deviation=0.0)
    with refused("choice-unknown", ConfigError, naming="log-normal"):
        draw_of("normal", EDMSchedule(), mean=None, deviation=None)  # type: ignore[arg-type]
