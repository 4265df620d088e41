"""Grids land where published samplers do, and the rows of a table join up."""

import dataclasses
import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.refusals import refused
from tests.samplers.oracle import AngleSchedule
from zoo.config import blocks
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import X0
from zoo.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    FlowSchedule,
    LinearSchedule,
    ScaledLinearSchedule,
    ShiftedCosineSchedule,
    VESchedule,
)
from zoo.diffusion.types import Prediction, StepReport
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.dpm_solver import DPMSolver
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.dpmpp_sde import DPMpp2MSDE
from zoo.samplers.grid import Karras, Leading, Linspace, LogSNR, Trailing
from zoo.samplers.multistep import LMS
from zoo.samplers.unipc import UniPC
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.registry import registry

SCHEDULES = [LinearSchedule(), ScaledLinearSchedule(), CosineSchedule(), CosineSchedule(steps=50)]
GRIDS = [Leading(), Leading(offset=0), Trailing(), Linspace(), Karras()]
DISCRETE = [Leading(), Leading(skip_cleanest=True), Trailing(), Linspace(), Linspace(skip_cleanest=True)]
SAMPLERS = [DDIM(), DDIM(eta=1.0), DDPM(), DPMpp2M()]


def indices(grid, schedule, steps):
    index = schedule.index_from_t(grid(schedule, steps))
    assert np.array_equal(index, np.round(index))
    return index.astype(int).tolist()


@pytest.mark.peer
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 20, 25, 30, 50, 77, 100, 333, 499, 500, 600, 999])
@pytest.mark.parametrize(
    ("grid", "spacing"),
    [
        (Leading(), {"timestep_spacing": "leading", "steps_offset": 1}),
        (Leading(offset=0), {"timestep_spacing": "leading"}),
        (Trailing(), {"timestep_spacing": "trailing"}),
        (Linspace(), {"timestep_spacing": "linspace"}),
    ],
)
def test_nodes_are_diffusers_timesteps(grid, spacing, steps):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**spacing)
    scheduler.set_timesteps(steps)
    # By rounding, np.arange gives diffusers' trailing grid one item too many for some counts (499): the index -1.
    assert indices(grid, LinearSchedule(), steps) == scheduler.timesteps.tolist()[:steps]


@pytest.mark.peer
@pytest.mark.parametrize("steps", [1, 2, 10, 25, 30, 99, 499])
@pytest.mark.parametrize(
    ("grid", "spacing"),
    [
        (Leading(skip_cleanest=True), {"timestep_spacing": "leading", "steps_offset": 1}),
        (Linspace(skip_cleanest=True), {"timestep_spacing": "linspace"}),
        (Trailing(), {"timestep_spacing": "trailing"}),
    ],
)
def test_nodes_without_the_cleanest_are_diffusers_multistep_timesteps(grid, spacing, steps):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(**spacing)
    scheduler.set_timesteps(steps)
    assert indices(grid, LinearSchedule(), steps) == scheduler.timesteps.tolist()[:steps]


@pytest.mark.peer
@pytest.mark.parametrize("steps", [1, 8, 25])
def test_karras_sigmas_are_diffusers(steps):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(use_karras_sigmas=True, beta_schedule="linear", beta_start=1e-4)
    scheduler.set_timesteps(steps)
    alpha, sigma = LinearSchedule()(Karras()(LinearSchedule(), steps))
    assert np.allclose(sigma / alpha, scheduler.sigmas[:-1].numpy(), rtol=1e-4)


def test_as_many_steps_as_points_visit_every_point():
    # Original latent diffusion walks off its table here; the offset gives way instead.
    for grid in (Leading(offset=1), Leading(offset=5), Trailing(), Linspace()):
        assert indices(grid, LinearSchedule(), 1000) == list(range(999, -1, -1))


def test_no_leading_grid_leaves_the_table():
    for steps in range(1, 1001):
        nodes = indices(Leading(offset=1), LinearSchedule(), steps)
        assert nodes[0] <= 999
        assert nodes[-1] == (1 if steps < 1000 else 0)


@pytest.mark.parametrize("grid", DISCRETE)
def test_more_steps_than_points_name_both_numbers(grid):
    with refused("steps-too-many"):
        grid(CosineSchedule(steps=50), 51)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "10", None])
def test_steps_that_are_no_count_are_refused(steps):
    if steps is None:
        assert len(DDIM(steps=9).plan(LinearSchedule(), None)) == 9
    else:
        with refused("steps-out-of-range"):
            DDIM().plan(LinearSchedule(), steps)


@settings(max_examples=60, deadline=None)
@given(
    schedule=st.sampled_from(SCHEDULES),
    grid=st.sampled_from(GRIDS),
    sampler=st.sampled_from([DDIM, DDPM, DPMpp2M]),
    final=st.sampled_from(["clean", "first"]),
    steps=st.integers(1, 50),
)
def test_tables_descend_join_up_and_end_where_they_should(schedule, grid, sampler, final, steps):
    table = sampler(grid=grid, final=final).plan(schedule, steps)
    assert len(table) == table.evaluations == steps
    assert [s.index for s in table.steps] == list(range(steps))
    for one, after in pairwise(table.steps):
        assert one.t > one.t_next == after.t
        assert (one.alpha_next, one.sigma_next) == (after.alpha, after.sigma)
    for step in table.steps:
        assert (step.alpha, step.sigma) == tuple(float(v) for v in schedule(step.t))
        assert all(np.isfinite(step.coefficients))
        assert all(type(v) is float for v in step.coefficients)
    last = table.steps[-1]
    if final == "clean":
        assert (last.t_next, last.alpha_next, last.sigma_next) == (0.0, 1.0, 0.0)
    else:
        assert last.alpha_next == pytest.approx(schedule.alphas_bar[0] ** 0.5)


@settings(max_examples=60, deadline=None)
@given(
    grid=st.sampled_from(GRIDS),
    steps=st.integers(4, 40),
    cut=st.floats(0.3, 0.9),
)
def test_two_intervals_are_one_run_handed_on(grid, steps, cut):
    schedule = LinearSchedule()
    whole = DDIM(grid=grid).plan(schedule, steps).steps
    high = [s for s in whole if s.t > cut]
    low = [s for s in whole if s.t <= cut]
    if high and low:
        upper = DDIM(grid=grid).plan(schedule, steps, interval=(1.0, cut)).steps
        lower = DDIM(grid=grid).plan(schedule, steps, interval=(cut, 0.0)).steps
        assert [s.t for s in upper] == [s.t for s in high]
        assert [s.t for s in lower] == [s.t for s in low]
        assert upper[-1].t_next == lower[0].t
        assert [s.index for s in lower] == list(range(len(lower)))


def test_decimal_ends_meet_the_nodes_they_name():
    for k in range(1, 10):
        table = DDIM().plan(LinearSchedule(), 10, interval=(k / 10, 0.0))
        assert len(table) == k
        assert table.start.t == pytest.approx(k / 10)
        assert len(DDIM().plan(LinearSchedule(), 10, interval=(1.0, 0.1 * k))) == 10 - k


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interval_without_nodes_names_the_mend(sampler):
    with refused("steps-too-few", UsageError, naming="0.1"):
        sampler.plan(LinearSchedule(), 4, interval=(0.1, 0.0))


@pytest.mark.parametrize("interval", [(0.0, 0.0), (0.2, 0.5), (1.1, 0.0), (0.5, -0.1), (float("nan"), 0.0)])
def test_impossible_intervals_are_refused(interval):
    with refused("interval-invalid", UsageError):
        DDIM().plan(LinearSchedule(), 10, interval=interval)


@pytest.mark.parametrize(
    "arguments", [{"sigma_max": 1e6}, {"sigma_min": -1.0}, {"sigma_min": 5.0, "sigma_max": 2.0}, {"sigma_min": 0.0}]
)
def test_karras_ends_outside_the_schedule_are_refused(arguments):
    with refused("sigmas-invalid", UsageError):
        Karras(**arguments)(LinearSchedule(), 10)


def test_a_lowest_noise_that_the_schedule_has_not_is_refused():
    """It would be another in the run, unsaid: clipped by the schedule, or told to the network as the first point's."""
    low, clipped = 1e-3, VESchedule()
    assert clipped(clipped.t_from_log_snr(-2.0 * np.log(low)))[1] == pytest.approx(0.01)
    schedule = LinearSchedule()
    denoiser = Denoiser(network=nn.Identity(), schedule=schedule, parameterization=X0())
    assert denoiser.time_input(float(schedule.t_from_log_snr(-2.0 * np.log(low)))) == 0.0
    first = float(np.divide(*schedule(1.0 / schedule.T)[::-1]))
    assert first > 9.0 * low
    for grid in (Karras, LogSNR):
        for made in (clipped, schedule, ShiftedCosineSchedule(high=10.0)):
            with refused("sigmas-invalid", UsageError, naming="0.001"):
                grid(sigma_min=low, sigma_max=5.0)(made, 4)
        for lowest, made in ((first, schedule), (0.01, clipped), (0.002, EDMSchedule(rho=1.0)), (low, FlowSchedule())):
            assert len(grid(sigma_min=lowest, sigma_max=5.0)(made, 4)) == 4


STAYING = [
    LMS(), DPMSolver(order=3), DPMSolver(), DPMpp2MSDE(solver="heun"), DPMpp2MSDE(), DPMpp2M(), DDIM(), UniPC(order=3),
]  # fmt: skip


@pytest.mark.parametrize("sampler", STAYING)
@pytest.mark.parametrize("grid", [Karras(), LogSNR(), Linspace(), Leading(offset=0)])
def test_a_stride_that_leads_nowhere_leaves_the_state(sampler, grid):
    """`final` "first" on a grid that ends there: the network is asked, the levels are one, to an ulp, and x stays."""
    for schedule in (LinearSchedule(), VESchedule(steps=40)):
        table = dataclasses.replace(sampler, grid=grid, final="first").plan(schedule, 5)
        last = table.steps[-1]
        assert last.sigma_next == pytest.approx(last.sigma, rel=1e-12)
        assert all(math.isfinite(c) for step in table.steps for c in step.coefficients)
        x = table.start.sigma * torch.ones(1, 1, 2, 2, dtype=torch.float64)
        reports: list[StepReport] = []
        end = sampler(_half, table, x, noise=_ones, callback=reports.append)
        if not isinstance(sampler, UniPC):  # which corrects its last state by that look
            torch.testing.assert_close(end, reports[-1].x_t, rtol=1e-9, atol=1e-9)


ENDING = ["karras", "log-snr", "linspace", {"name": "leading", "offset": 0}, {"name": "sections", "sections": "ddim5"}]


@pytest.mark.parametrize("name", [name for name in registry().names("sampler") if name != "repaint"])
def test_every_sampler_ends_at_the_first_point_whatever_the_grid(name):
    for grid, schedule, steps in itertools.product(ENDING, (LinearSchedule(), VESchedule(steps=40)), (1, 2, 5)):
        sampler = blocks.make("sampler", {"name": name, "grid": grid, "final": "first"}, registry())
        if grid == ENDING[-1] and steps != 5:
            continue
        table = sampler.plan(schedule, steps)
        assert all(math.isfinite(c) for step in table.steps for c in step.coefficients)
        end = sampler(_half, table, table.start.sigma * torch.ones(1, 1, 2, 2, dtype=torch.float64), noise=_ones)
        assert bool(torch.isfinite(end).all())


def _half(x, step):
    return Prediction(x0=torch.full_like(x, 0.5))


def _ones(step, draw=0):
    return torch.ones(1, 1, 2, 2, dtype=torch.float64)


def test_continuous_schedules_take_the_grids_that_dont_count_points():
    assert Trailing()(AngleSchedule(), 4).tolist() == [1.0, 0.75, 0.5, 0.25]
    assert len(Karras(sigma_min=0.01, sigma_max=50.0)(AngleSchedule(), 7)) == 7
    for grid in (Leading(), Linspace()):
        with refused("schedule-not-discrete", UsageError):
            grid(AngleSchedule(), 4)
    with refused("sigma-min-missing"):
        Karras(sigma_max=50.0)(AngleSchedule(), 4)
    with refused("schedule-not-discrete", ConfigError):
        DDIM(final="first").plan(AngleSchedule(), 4)


def test_wrong_settings_are_refused_when_made():
    for make, refusal in (
        (lambda: DDIM(eta=1.5), "eta-out-of-range"),
        (lambda: DDPM(variance="learned"), "choice-unknown: variance"),  # pyright: ignore[reportArgumentType]
        (lambda: Leading(offset=-1), "number-out-of-range: offset"),
        (lambda: Karras(rho=0.0), "number-out-of-range: rho"),
        (lambda: DDIM(final="end").plan(LinearSchedule()), "choice-unknown: final"),  # pyright: ignore[reportArgumentType]
    ):
        with refused(refusal, ConfigError):
            make()


def test_a_grid_that_goes_up_is_refused():
    class Up:
        def __call__(self, schedule, steps):
            return np.linspace(0.1, 1.0, steps)

    with refused("grid-not-descending"):
        DDIM(grid=Up()).plan(LinearSchedule(), 4)
