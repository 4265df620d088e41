"""A latent consistency model's sampler: the authors' recorded runs, diffusers' scheduler, and draws of the data."""

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler
from safetensors.torch import load_file

from tests import golden_sets
from tests.refusals import refused
from tests.samplers.oracle import GivenGrid, given_noise, relative
from tests.samplers.test_distribution import COUNT, DATA, DIMENSIONS, Counted, p_value
from zoo.diffusion.parameterization import Eps, V
from zoo.diffusion.schedules import LinearSchedule, ScaledLinearSchedule
from zoo.diffusion.types import Prediction
from zoo.networks.blocks import sines_first_embedding
from zoo.samplers.consistency import Consistency
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid_tables import Distilled

RECORDED = "sampling/consistency"
CASES = {
    "lcm_1": (ScaledLinearSchedule(), Eps()),
    "lcm_4": (ScaledLinearSchedule(), Eps()),
    "lcm_v_3": (LinearSchedule(), V()),
}


def run(name, io, **flip):
    """The authors' run with the model of the set, F(x, t) = sin(1.3 x + t / 900)."""
    schedule, reading = CASES[name]
    reading = flip.get("reading", reading)
    times = io[f"{name}/timesteps"].tolist()
    table = Consistency(grid=GivenGrid(tuple(sorted(times)))).plan(schedule, len(times))

    def denoise(x, step):
        t = step.t * schedule.T - 1
        c_skip, c_out, _ = reading(step.alpha, step.sigma)
        return Prediction(x0=c_skip * x + c_out * torch.sin(1.3 * x.double() + t / 900).float())

    noise = io.get(f"{name}/noise", torch.zeros(1))
    return Consistency()(denoise, table, io[f"{name}/x"][0], noise=given_noise(flip.get("noise", noise)))


@pytest.mark.gold(RECORDED)
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_authors_sampler(name):
    io = load_file(golden_sets.folder(RECORDED) / "io.safetensors")
    assert relative(run(name, io), io[f"{name}/sample"]) < 1e-5
    other = V() if name != "lcm_v_3" else Eps()
    assert relative(run(name, io, reading=other), io[f"{name}/sample"]) > 1e-2
    if name != "lcm_1":
        assert relative(run(name, io, noise=-io[f"{name}/noise"]), io[f"{name}/sample"]) > 1e-2


@pytest.mark.gold(RECORDED)
def test_a_guidance_scale_is_embedded_as_the_authors_embed_it():
    io = load_file(golden_sets.folder(RECORDED) / "io.safetensors")
    made = sines_first_embedding(1000.0 * io["lcm_w_embedding/w"].float(), 256)
    assert relative(made, io["lcm_w_embedding/embedding"]) < 1e-4  # 7000 radians, in float32
    assert relative(made.roll(128, dims=1), io["lcm_w_embedding/embedding"]) > 1e-2


@pytest.mark.peer
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 8, 50])
def test_its_grid_is_diffusers(steps):
    scheduler = LCMScheduler()
    scheduler.set_timesteps(steps)
    indices = np.round(Distilled()(ScaledLinearSchedule(), steps) * 1000 - 1)
    assert indices.tolist() == scheduler.timesteps.tolist()


def test_its_grid_refuses_more_steps_than_it_was_distilled_at():
    with refused("steps-too-many", naming="use at most 50 steps"):
        Distilled()(ScaledLinearSchedule(), 51)
    with refused("number-out-of-range", naming="origin is 0"):
        Distilled(origin=0)


def draws(estimate, factor=1.0):
    schedule, sampler = LinearSchedule(), Consistency()
    table = sampler.plan(schedule, 4)
    x = torch.from_numpy(np.random.default_rng(5).standard_normal((COUNT, DIMENSIONS)))
    return sampler(lambda x, step: Prediction(x0=estimate(x, step)), table, x, noise=Counted(factor))


def end_of_path(x, step):
    """Where the probability-flow ODE leads from x_t: what a consistency model is trained to give."""
    sampler = DDIM()
    table = sampler.plan(LinearSchedule(), 250, interval=(step.t, 0.0))
    found = sampler(
        lambda x, at: Prediction(x0=DATA.x0(x, at.alpha, at.sigma)), table, x, noise=lambda *address: None
    )  # fmt: skip
    return found


@pytest.mark.slow
def test_with_the_ends_of_paths_it_draws_the_data_and_with_means_too_smooth_samples():
    assert p_value(draws(end_of_path)) > 1e-4
    assert p_value(draws(end_of_path, factor=1.3)) < 1e-8
    assert p_value(draws(lambda x, step: DATA.x0(x, step.alpha, step.sigma))) < 1e-8
