"""Every sampler against data whose denoiser is known: equivalence, order of convergence, distribution."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samplers.oracle import (
    AngleSchedule,
    ExplodingSchedule,
    Mixture,
    bound_oracle,
    mixture,
    no_noise,
    record_states,
    relative,
    start,
)
from zoo.diffusion.noise import AddressedNoise, bound
from zoo.diffusion.parameterization import X0, Eps, V
from zoo.diffusion.schedules import CosineSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.grid import Karras, Leading, Linspace, Trailing

SHAPE = (2, 3, 3)
SAMPLERS = {
    "ddpm-small": DDPM(),
    "ddpm-large": DDPM(variance="fixed_large"),
    "ddim": DDIM(),
    "ddim-half": DDIM(eta=0.5, grid=Leading()),
    "ddim-first": DDIM(final="first", grid=Leading()),
    "dpmpp-2m": DPMpp2M(),
    "dpmpp-2m-karras": DPMpp2M(grid=Karras()),
    "dpmpp-2m-linspace": DPMpp2M(grid=Linspace()),
}
SCHEDULES = {"linear": LinearSchedule(), "scaled-linear": ScaledLinearSchedule(), "cosine": CosineSchedule()}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def step_noise(seed=7, samples=range(4), shape=SHAPE):
    return bound(AddressedNoise(seed), shape=shape, samples=samples)


def trajectory(sampler, schedule, parameterization, *, steps=12, seed=0):
    table = sampler.plan(schedule, steps)
    states: list[torch.Tensor] = []
    denoise = bound_oracle(mixture(SHAPE), schedule, table, parameterization)
    x = start(table, (4, *SHAPE), seed=seed)
    sampler(denoise, table, x, noise=step_noise(), after_step=record_states(states))
    return torch.stack(states)


@pytest.mark.slow
@each_schedule
@each_sampler
def test_every_parameterization_gives_the_same_trajectory(sampler, schedule):
    by_x0 = trajectory(sampler, schedule, X0())
    by_v = trajectory(sampler, schedule, V())
    by_eps = trajectory(sampler, schedule, Eps())
    assert torch.allclose(by_v, by_x0, rtol=1e-9, atol=1e-9)
    # Where alpha = 5e-5 (the cosine's end), x0 = (x - sigma eps) / alpha loses four digits and more.
    assert torch.allclose(by_eps, by_x0, rtol=1e-9, atol=1e-9)


@each_sampler
def test_reading_the_output_by_the_wrong_parameterization_changes_the_trajectory(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 12)
    denoise = bound_oracle(mixture(SHAPE), schedule, table, V())
    denoise.denoiser.parameterization = Eps()
    x = start(table, (4, *SHAPE))
    wrong = sampler(denoise, table, x, noise=step_noise())
    assert relative(wrong, trajectory(sampler, schedule, V())[-1]) > 1e-2


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLERS)),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(1, 25),
    seed=st.integers(0, 2**32),
)
def test_trajectories_agree_for_any_number_of_steps(name, schedule, steps, seed):
    by_x0 = trajectory(SAMPLERS[name], SCHEDULES[schedule], X0(), steps=steps, seed=seed)
    by_v = trajectory(SAMPLERS[name], SCHEDULES[schedule], V(), steps=steps, seed=seed)
    assert torch.allclose(by_v, by_x0, rtol=1e-9, atol=1e-9)


@each_sampler
def test_a_call_is_pure(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 10)
    x = start(table, (4, *SHAPE))
    before = x.clone()
    denoise = bound_oracle(mixture(SHAPE), schedule, table)
    first = sampler(denoise, table, x, noise=step_noise())
    second = sampler(denoise, table, x, noise=step_noise())
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert sampler.plan(schedule, 10) == table


@each_sampler
def test_a_sample_is_the_same_in_any_batch(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 10)
    denoise = bound_oracle(mixture(SHAPE), schedule, table)
    x = start(table, (4, *SHAPE))
    whole = sampler(denoise, table, x, noise=step_noise())
    one = sampler(denoise, table, x[2:3], noise=step_noise(samples=[2]))
    assert torch.allclose(whole[2:3], one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", [DDIM(), DPMpp2M()], ids=["ddim", "dpmpp-2m"])
def test_ode_solvers_ask_no_noise(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 8)
    sampler(bound_oracle(mixture(SHAPE), schedule, table), table, start(table, (1, *SHAPE)), noise=no_noise)


@pytest.mark.parametrize("sampler", [DDIM(eta=0.3), DDPM()], ids=["ddim", "ddpm"])
def test_stochastic_samplers_follow_the_noise(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 8)
    denoise = bound_oracle(mixture(SHAPE), schedule, table)
    x = start(table, (4, *SHAPE))
    a = sampler(denoise, table, x, noise=step_noise(seed=1))
    b = sampler(denoise, table, x, noise=step_noise(seed=2))
    assert relative(a, b) > 1e-2


@each_sampler
def test_state_is_float32_or_wider(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 5)
    denoise = bound_oracle(mixture(SHAPE), schedule, table)
    for given_dtype, kept in (("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")):
        x = start(table, (4, *SHAPE), dtype=getattr(torch, given_dtype))
        assert sampler(denoise, table, x, noise=step_noise()).dtype == getattr(torch, kept)


@each_sampler
def test_float32_agrees_with_float64(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 20)
    denoise = bound_oracle(mixture(SHAPE), schedule, table)
    x = start(table, (4, *SHAPE))
    wide = sampler(denoise, table, x, noise=step_noise())
    narrow = sampler(denoise, table, x.float(), noise=step_noise())
    assert relative(narrow, wide) < 1e-4


@each_sampler
def test_callback_sees_every_state_and_estimate(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 6)
    reports, states = [], []
    x = start(table, (2, *SHAPE))
    noise = step_noise(samples=range(2))
    end = sampler(
        bound_oracle(mixture(SHAPE), schedule, table),
        table,
        x,
        noise=noise,
        callback=reports.append,
        after_step=record_states(states),
    )
    assert [(r.index, r.total) for r in reports] == [(i, 6) for i in range(6)]
    assert torch.equal(reports[0].x_t, x)
    assert all(torch.equal(r.x_t, s) for r, s in zip(reports[1:], states, strict=False))
    for report, step in zip(reports, table.steps, strict=True):
        assert torch.allclose(report.x0, mixture(SHAPE).x0(report.x_t, step.alpha, step.sigma), atol=1e-9)
    if sampler.final == "clean":
        assert torch.equal(end, reports[-1].x0)


@each_sampler
def test_after_step_may_change_the_state(sampler):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, 6)
    denoise = bound_oracle(mixture(SHAPE), schedule, table)
    x = start(table, (4, *SHAPE))
    shifted = sampler(denoise, table, x, noise=step_noise(), after_step=lambda x, step: x + 10.0 * (step.index == 5))
    assert torch.equal(shifted, sampler(denoise, table, x, noise=step_noise()) + 10.0)


# Order of convergence: over an interval within a smooth schedule, where solvers have nothing but their own error.


def end_state(sampler, steps, schedule, *, interval=(0.9, 0.2)):
    table = sampler.plan(schedule, steps, interval=interval)
    assert math.isclose(table.start.t, interval[0])
    assert math.isclose(table.steps[-1].t_next, interval[1])
    return sampler(
        bound_oracle(mixture(SHAPE), schedule, table, X0()), table, start(table, (4, *SHAPE)), noise=no_noise
    )


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [AngleSchedule(), ExplodingSchedule()], ids=["preserving", "exploding"])
@pytest.mark.parametrize(
    ("sampler", "order"), [(DDIM(grid=Trailing()), 1.0), (DPMpp2M(grid=Trailing()), 2.0)], ids=["ddim", "dpmpp-2m"]
)
def test_solvers_have_their_theoretical_order(sampler, order, schedule):
    exact = end_state(DPMpp2M(), 8000, schedule)
    counts = (160, 320, 640)
    errors = [relative(end_state(sampler, count, schedule), exact) for count in counts]
    observed = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(o - order) < 0.15 for o in observed), (errors, observed)


@pytest.mark.slow
def test_second_order_is_lost_without_the_earlier_estimate():
    class Forgetful(DPMpp2M):
        def plan(self, schedule, steps=None, *, interval=(1.0, 0.0)):
            return DDIM(grid=self.grid).plan(schedule, steps, interval=interval)

    exact = end_state(DPMpp2M(), 4000, AngleSchedule())
    errors = [relative(end_state(Forgetful(), count, AngleSchedule()), exact) for count in (160, 320)]
    assert math.log2(errors[0] / errors[1]) < 1.2


@pytest.mark.slow
def test_one_gaussian_is_transported_exactly():
    # The ODE of one Gaussian is linear: x_t = alpha m + sqrt(v_t) z keeps its z.
    m, s = torch.full((1, 2, 3, 3), 0.3, dtype=torch.float64), 0.5
    data = Mixture(torch.ones(1, dtype=torch.float64), m, torch.tensor([s], dtype=torch.float64))
    schedule = AngleSchedule()
    sampler = DPMpp2M()
    table = sampler.plan(schedule, 2000, interval=(0.9, 0.1))
    z = start(table, (2, *SHAPE))

    def deviation(alpha, sigma):
        return math.sqrt(alpha**2 * s**2 + sigma**2)

    first, last = table.start, table.steps[-1]
    x = first.alpha * m + deviation(first.alpha, first.sigma) * z
    end = sampler(bound_oracle(data, schedule, table, X0()), table, x, noise=no_noise)
    right = last.alpha_next * m + deviation(last.alpha_next, last.sigma_next) * z
    assert relative(end, right) < 1e-5


# Distribution.

POINTS = Mixture(
    weights=torch.tensor([0.3, 0.7], dtype=torch.float64),
    means=torch.tensor([[1.0, -0.5], [-0.8, 0.6]], dtype=torch.float64),
    deviations=torch.tensor([0.2, 0.35], dtype=torch.float64),
)


def draw(sampler, count=4000):
    schedule = LinearSchedule()
    table = sampler.plan(schedule)
    noise = torch.from_numpy(np.random.default_rng(11).standard_normal((len(table), count, 2)))
    x = start(table, (count, 2), seed=5)
    return sampler(bound_oracle(POINTS, schedule, table, X0()), table, x, noise=lambda step, draw=0: noise[step])


def discrepancies(samples):
    """Distances of weight, means and covariances from the truth, in standard errors where they have one."""
    right = samples[:, 0] - samples[:, 1] > 0.0  # the line between the means; hardly any mass is near it
    weight = abs(float(right.double().mean()) - 0.3) / math.sqrt(0.3 * 0.7 / len(samples))
    mean = [
        float((samples[rows].mean(0) - POINTS.means[k]).abs().max() / (POINTS.deviations[k] / rows.sum().sqrt()))
        for k, rows in enumerate((right, ~right))
    ]
    covariance = [
        float((torch.cov(samples[rows].T) / POINTS.deviations[k] ** 2 - torch.eye(2)).abs().max())
        for k, rows in enumerate((right, ~right))
    ]
    return weight, max(mean), max(covariance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [DDPM(steps=300), DDPM(steps=300, variance="fixed_large"), DDIM(steps=300, eta=1.0), DDIM(steps=300)],
    ids=["ddpm-small", "ddpm-large", "ddim-1", "ddim-0"],
)
def test_samples_have_the_distribution_of_the_data(sampler):
    weight, mean, covariance = discrepancies(draw(sampler))
    assert weight < 4.0
    assert mean < 5.0
    assert covariance < 0.15


@pytest.mark.slow
def test_the_distribution_test_sees_a_wrong_noise():
    class Louder(DDIM):
        def write(self, table, walk):
            super().write(table, walk)
            for k, step in enumerate(table.steps):
                a, b, tau, *others = step.coefficients
                table.steps[k] = replace(step, coefficients=(a, b, 1.1 * tau, *others))

    assert discrepancies(draw(Louder(steps=300, eta=1.0)))[2] > 0.15


def test_ddim_of_eta_one_is_ddpm_of_small_variance():
    schedule = LinearSchedule()
    ddim, ddpm = DDIM(eta=1.0).plan(schedule, 40), DDPM().plan(schedule, 40)
    for one, other in zip(ddim.steps, ddpm.steps, strict=True):
        a, b, tau = one.coefficients[:3]
        assert np.allclose((a, b, tau), other.coefficients[:3], rtol=1e-9, atol=1e-12)
        assert np.isclose(tau**2, other.own["variance"], rtol=1e-9, atol=1e-12)
