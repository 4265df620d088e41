"""Samplers against diffusers' schedulers, both driven by the same analytic model."""

import inspect
import itertools

import numpy as np
import pytest
import torch

from tests.samplers.oracle import bound_oracle, given_noise, mixture, no_noise, oracle, relative
from zoo.diffusion.parameterization import X0, Eps, V
from zoo.diffusion.schedules import CosineSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.diffusion.types import Condition
from zoo.guidance.threshold import StaticThreshold
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.grid import Karras, Leading, Linspace, Trailing
from zoo.samplers.repaint import RePaint

SHAPE = (3, 2, 3, 3)
DATA = mixture(SHAPE[1:])
CLOSE = 1e-4
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SCHEDULES = {"linear": (LinearSchedule(), LINEAR), "scaled": (ScaledLinearSchedule(), SCALED)}
TYPES = {"epsilon": Eps(), "v_prediction": V(), "sample": X0()}
START = torch.from_numpy(np.random.default_rng(1).standard_normal(SHAPE))
NOISE = torch.from_numpy(np.random.default_rng(2).standard_normal((1000, *SHAPE)))

each_type = pytest.mark.parametrize("prediction", TYPES)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


def answer(x, alpha, sigma, prediction):
    x0 = DATA.x0(x, alpha, sigma)
    return TYPES[prediction].target(x0, (x - alpha * x0) / sigma, alpha, sigma)


def drive(scheduler, steps, *, schedule, noise=True, **keywords):
    """diffusers' loop, from the unit start; its model knows the noise of the points it is asked at."""
    scheduler.set_timesteps(steps)
    x = START
    for k, t in enumerate(scheduler.timesteps):
        alpha, sigma = (float(v) for v in schedule((float(t) + 1.0) / 1000))
        if noise and "variance_noise" in inspect.signature(scheduler.step).parameters:
            keywords["variance_noise"] = NOISE[k]
        output = answer(x, alpha, sigma, scheduler.config.prediction_type)
        x = scheduler.step(output, t, x, **keywords).prev_sample
    return x


def zoo_run(sampler, schedule, steps, *, prediction="epsilon", clip=None, noise=None):
    noise = given_noise(NOISE) if noise is None else noise
    table = sampler.plan(schedule, steps)
    denoiser = oracle(DATA, schedule, TYPES[prediction])
    denoise = denoiser.bind(Condition(), table)
    if clip is not None:
        threshold = StaticThreshold(low=-clip, high=clip)
        denoise = threshold.wrap(denoise, denoiser=denoiser, cond=Condition(), null=None, table=table)
    return sampler(denoise, table, START, noise=noise)


# diffusers' DDIM goes from t to t - T // n, which is the grid's next node only where n divides T.
DDIM_GRIDS = {
    "leading-0": ({"timestep_spacing": "leading", "steps_offset": 0}, Leading(offset=0)),
    "leading-1": ({"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1)),
    "trailing": ({"timestep_spacing": "trailing"}, Trailing()),
}


@pytest.mark.slow
@pytest.mark.peer
@each_type
@each_schedule
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("grid", DDIM_GRIDS)
def test_ddim_agrees(grid, eta, schedule, prediction):
    from diffusers import DDIMScheduler

    ours, theirs = SCHEDULES[schedule]
    spacing, ours_grid = DDIM_GRIDS[grid]
    scheduler = DDIMScheduler(clip_sample=False, prediction_type=prediction, **theirs, **spacing)
    expected = drive(scheduler, 20, schedule=ours, eta=eta)
    assert relative(zoo_run(DDIM(eta=eta, grid=ours_grid), ours, 20, prediction=prediction), expected) < CLOSE


@pytest.mark.peer
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_agrees_where_x0_is_clipped(eta):
    from diffusers import DDIMScheduler

    schedule = LinearSchedule()
    scheduler = DDIMScheduler(clip_sample=True, clip_sample_range=0.5, timestep_spacing="trailing", **LINEAR)
    expected = drive(scheduler, 20, schedule=schedule, eta=eta, use_clipped_model_output=True)
    assert relative(zoo_run(DDIM(eta=eta), schedule, 20, clip=0.5), expected) < CLOSE
    assert relative(zoo_run(DDIM(eta=eta), schedule, 20), expected) > 1e-2


@pytest.mark.peer
@pytest.mark.parametrize(("steps", "divides"), [(25, True), (30, False), (48, False)])
def test_ddim_goes_from_node_to_node_where_diffusers_goes_by_whole_strides(steps, divides):
    """docs/samplers.md, "Differences on purpose"."""
    from diffusers import DDIMScheduler

    schedule = LinearSchedule()
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", **LINEAR)
    apart = relative(zoo_run(DDIM(), schedule, steps), drive(scheduler, steps, schedule=schedule))
    assert (apart < CLOSE) == divides


@pytest.mark.slow
@pytest.mark.peer
def test_ddim_agrees_at_every_point_on_linspace():
    from diffusers import DDIMScheduler

    schedule = LinearSchedule()
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="linspace", **LINEAR)
    expected = drive(scheduler, 1000, schedule=schedule, eta=0.0)
    assert relative(zoo_run(DDIM(grid=Linspace()), schedule, 1000), expected) < CLOSE


@pytest.mark.peer
@pytest.mark.parametrize("offset", [0, 1])
def test_ddim_agrees_where_it_ends_at_the_first_point(offset):
    from diffusers import DDIMScheduler

    schedule = ScaledLinearSchedule()
    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, timestep_spacing="leading", steps_offset=offset, **SCALED
    )
    expected = drive(scheduler, 20, schedule=schedule)
    assert relative(zoo_run(DDIM(grid=Leading(offset=offset), final="first"), schedule, 20), expected) < CLOSE


# The same comparison must fail once one switch stands wrong.
RIGHT = {"grid": Leading(offset=1), "eta": 0.5, "final": "first"}
WRONG_SWITCH = {
    "offset": {"grid": Leading(offset=0)},
    "trailing": {"grid": Trailing()},
    "linspace": {"grid": Linspace()},
    "skip_cleanest": {"grid": Leading(offset=1, skip_cleanest=True)},
    "karras": {"grid": Karras()},
    "eta": {"eta": 0.6},
    "final": {"final": "clean"},
}


def stable_diffusion_ddim():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, timestep_spacing="leading", steps_offset=1, **SCALED
    )
    return drive(scheduler, 20, schedule=ScaledLinearSchedule(), eta=0.5)


@pytest.mark.peer
@pytest.mark.parametrize("switch", [None, *WRONG_SWITCH])
def test_one_switch_flipped_is_seen(switch):
    error = relative(
        zoo_run(DDIM(**{**RIGHT, **WRONG_SWITCH.get(switch, {})}), ScaledLinearSchedule(), 20), stable_diffusion_ddim()
    )
    assert error < CLOSE if switch is None else error > 10 * CLOSE


@pytest.mark.peer
def test_another_schedule_is_seen():
    assert relative(zoo_run(DDIM(**RIGHT), LinearSchedule(), 20), stable_diffusion_ddim()) > 10 * CLOSE


def generator_noise(steps):
    """What a generator seeded with 3 gives diffusers' DDPM, which draws on every step but one at t = 0."""
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(steps)])


@pytest.mark.slow
@pytest.mark.peer
@each_type
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("grid", ["leading", "trailing", "linspace"])
def test_ddpm_agrees(grid, variance, prediction):
    from diffusers import DDPMScheduler

    schedule = LinearSchedule()
    # At index 0 neither adds noise; elsewhere diffusers ends in noise where zoo ends in x0, so lead from 0.
    ours = {"leading": Leading(offset=0), "trailing": Trailing(), "linspace": Linspace()}[grid]
    scheduler = DDPMScheduler(
        clip_sample=False, variance_type=variance, timestep_spacing=grid, prediction_type=prediction, **LINEAR
    )
    steps = 1000 if grid == "trailing" else 25
    expected = drive(scheduler, steps, schedule=schedule, generator=torch.Generator().manual_seed(3))
    noise = given_noise(generator_noise(steps))
    got = zoo_run(DDPM(variance=variance, grid=ours), schedule, steps, prediction=prediction, noise=noise)
    assert relative(got, expected) < CLOSE
    other = "fixed_large" if variance == "fixed_small" else "fixed_small"
    if steps == 25:
        assert relative(zoo_run(DDPM(variance=other, grid=ours), schedule, steps, noise=noise), expected) > 10 * CLOSE


@pytest.mark.peer
def test_ddpm_agrees_where_x0_is_clipped():
    from diffusers import DDPMScheduler

    schedule = LinearSchedule()
    scheduler = DDPMScheduler(clip_sample=True, clip_sample_range=0.5, timestep_spacing="linspace", **LINEAR)
    expected = drive(scheduler, 25, schedule=schedule, generator=torch.Generator().manual_seed(3))
    got = zoo_run(DDPM(grid=Linspace()), schedule, 25, clip=0.5, noise=given_noise(generator_noise(25)))
    assert relative(got, expected) < CLOSE


DPM_GRIDS = {
    "leading": ({"timestep_spacing": "leading", "steps_offset": 1}, Leading(offset=1, skip_cleanest=True)),
    "trailing": ({"timestep_spacing": "trailing"}, Trailing()),
    "linspace": ({"timestep_spacing": "linspace"}, Linspace(skip_cleanest=True)),
}


def dpm_scheduler(**keywords):
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_type="midpoint", **keywords)


@pytest.mark.slow
@pytest.mark.peer
@each_type
@each_schedule
@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("grid", DPM_GRIDS)
def test_dpmpp_2m_agrees(grid, steps, schedule, prediction):
    ours, theirs = SCHEDULES[schedule]
    spacing, ours_grid = DPM_GRIDS[grid]
    expected = drive(dpm_scheduler(prediction_type=prediction, **theirs, **spacing), steps, schedule=ours)
    got = zoo_run(DPMpp2M(grid=ours_grid), ours, steps, prediction=prediction, noise=no_noise)
    assert relative(got, expected) < CLOSE


@pytest.mark.peer
@pytest.mark.parametrize("grid", DPM_GRIDS)
def test_ddim_is_the_first_order_solver(grid):
    schedule = LinearSchedule()
    spacing, ours_grid = DPM_GRIDS[grid]
    expected = drive(dpm_scheduler(solver_order=1, **LINEAR, **spacing), 20, schedule=schedule)
    assert relative(zoo_run(DDIM(grid=ours_grid), schedule, 20, noise=no_noise), expected) < CLOSE
    assert relative(zoo_run(DPMpp2M(grid=ours_grid), schedule, 20, noise=no_noise), expected) > 10 * CLOSE


@pytest.mark.peer
@pytest.mark.parametrize("grid", DPM_GRIDS)
def test_a_wrong_grid_is_seen(grid):
    schedule = LinearSchedule()
    expected = drive(dpm_scheduler(**LINEAR, **DPM_GRIDS[grid][0]), 20, schedule=schedule)
    for other in set(DPM_GRIDS) - {grid}:
        got = zoo_run(DPMpp2M(grid=DPM_GRIDS[other][1]), schedule, 20, noise=no_noise)
        assert relative(got, expected) > 10 * CLOSE


@pytest.mark.peer
@each_schedule
@pytest.mark.parametrize("steps", [8, 20])
def test_dpmpp_2m_agrees_on_karras_sigmas(steps, schedule):
    ours, theirs = SCHEDULES[schedule]
    scheduler = dpm_scheduler(use_karras_sigmas=True, **theirs)
    scheduler.set_timesteps(steps)
    x = START
    for k, t in enumerate(scheduler.timesteps):
        # diffusers rounds the index but keeps the sigma; the model is asked at the sigma.
        alpha = 1.0 / float(1.0 + scheduler.sigmas[k].double() ** 2) ** 0.5
        x = scheduler.step(DATA.eps(x, alpha, (1.0 - alpha**2) ** 0.5), t, x).prev_sample
    assert relative(zoo_run(DPMpp2M(grid=Karras()), ours, steps, noise=no_noise), x) < CLOSE
    assert relative(zoo_run(DPMpp2M(grid=Karras(rho=6.0)), ours, steps, noise=no_noise), x) > CLOSE


@pytest.mark.peer
def test_dpmpp_2m_agrees_on_the_cosine_schedule():
    # In float32 diffusers' last points are a few 1e-5 off; v doesn't divide by alpha there.
    schedule = CosineSchedule()
    scheduler = dpm_scheduler(prediction_type="v_prediction", timestep_spacing="trailing", **COSINE)
    expected = drive(scheduler, 20, schedule=schedule)
    assert relative(zoo_run(DPMpp2M(), schedule, 20, prediction="v_prediction", noise=no_noise), expected) < CLOSE


@pytest.mark.peer
def test_the_oracle_is_asked_what_the_scheduler_asks():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing="leading", steps_offset=1, **SCALED)
    scheduler.set_timesteps(20)
    schedule = ScaledLinearSchedule()
    sampler = DDIM(grid=Leading())
    table = sampler.plan(schedule, 20)
    denoise = bound_oracle(DATA, schedule, table)
    sampler(denoise, table, START, noise=no_noise)
    assert [time for _, time in denoise.denoiser.network.calls] == [float(t) for t in scheduler.timesteps]


@pytest.mark.peer
@pytest.mark.parametrize(("steps", "jump", "resamples"), [(250, 10, 10), (50, 7, 3), (20, 30, 4)])
def test_repaint_walks_up_and_down_where_diffusers_does(steps, jump, resamples):
    from diffusers import RePaintScheduler

    scheduler = RePaintScheduler()
    scheduler.set_timesteps(steps, jump_length=jump, jump_n_sample=resamples)
    # Their list has the ways up too; the network is asked where the next entry is lower, and at the end.
    path = [int(t) for t in scheduler.timesteps]
    asked = [a for a, b in itertools.pairwise([*path, -1]) if b < a]
    table = RePaint(steps=steps, sampler=DDPM(grid=Leading(offset=0)), jump=jump, resamples=resamples).plan(
        LinearSchedule()
    )
    assert [round(step.t * 1000) - 1 for step in table.steps] == asked
