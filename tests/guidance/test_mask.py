"""Masks: the known part walks its own noised path, whatever the sampler."""

import math

import pytest
import torch

from tests.samplers.oracle import given_noise, mixture, no_noise, oracle, relative, start
from zoo.diffusion.schedules import CosineSchedule, ScaledLinearSchedule
from zoo.diffusion.types import Condition, Prediction
from zoo.guidance.mask import Mask
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.grid import Karras

SHAPE = (2, 4, 4)
KNOWN = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
KNOWN[..., :2] = True
PICTURE = torch.linspace(-1.0, 1.0, 3 * 32, dtype=torch.float64).reshape(3, *SHAPE)
SAMPLERS = {
    "ddpm": DDPM(),
    "ddpm-large": DDPM(variance="fixed_large"),
    "ddim": DDIM(),
    "ddim-eta": DDIM(eta=0.7),
    "dpmpp-2m": DPMpp2M(),
    "dpmpp-2m-karras": DPMpp2M(grid=Karras()),
}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


def masked(table, schedule, known=KNOWN):
    denoiser = oracle(mixture(SHAPE), schedule)
    return Mask(x0=PICTURE, known=known).wrap(
        denoiser.bind(Condition(), table), denoiser=denoiser, cond=Condition(), null=None, table=table
    )


@each_sampler
def test_the_known_part_comes_out_unchanged_and_the_rest_is_painted(sampler):
    schedule = ScaledLinearSchedule()
    table = sampler.plan(schedule, 10)
    noise = given_noise(torch.randn(10, 3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    end = sampler(masked(table, schedule), table, start(table, (3, *SHAPE)), noise=noise)
    assert torch.equal(end[..., :2], PICTURE[..., :2])
    assert relative(end[..., 2:], PICTURE[..., 2:]) > 0.1


@pytest.mark.parametrize("sampler", [DDIM(), DPMpp2M(), DPMpp2M(grid=Karras())], ids=["ddim", "dpm", "dpm-karras"])
def test_ode_solvers_keep_the_known_part_on_its_own_noised_path(sampler):
    schedule = ScaledLinearSchedule()
    table = sampler.plan(schedule, 10)
    eps = start(table, (3, *SHAPE)) / table.start.sigma
    reports = []
    x = table.start.alpha * PICTURE + table.start.sigma * eps
    sampler(masked(table, schedule), table, x, noise=no_noise, callback=reports.append)
    for report, step in zip(reports, table.steps, strict=True):
        path = step.alpha * PICTURE + step.sigma * eps
        assert torch.allclose(report.x_t[..., :2], path[..., :2], rtol=1e-9, atol=1e-9)
        assert report.index == 0 or relative(report.x_t[..., 2:], path[..., 2:]) > 1e-3


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(eta=0.7), DDIM(eta=1.0)], ids=["ddpm", "ddim", "ddim-1"])
def test_stochastic_samplers_keep_the_known_part_distributed_as_noised_to_its_level(sampler):
    schedule = CosineSchedule()
    table = sampler.plan(schedule, 10)
    generator = torch.Generator().manual_seed(2)
    count = 400
    picture = PICTURE[:1].expand(count, -1, -1, -1)
    noise = torch.randn(11, count, *SHAPE, generator=generator, dtype=torch.float64)
    denoiser = oracle(mixture(SHAPE), schedule)
    denoise = Mask(x0=picture, known=KNOWN).wrap(
        denoiser.bind(Condition(), table), denoiser=denoiser, cond=Condition(), null=None, table=table
    )
    reports = []
    x = table.start.alpha * picture + table.start.sigma * noise[10]
    sampler(denoise, table, x, noise=given_noise(noise), callback=reports.append)
    for report, step in zip(reports, table.steps, strict=True):
        left = ((report.x_t - step.alpha * picture) / step.sigma)[..., :2]
        assert abs(float(left.mean())) < 5.0 / math.sqrt(left.numel())
        assert abs(float(left.var()) - 1.0) < 5.0 * math.sqrt(2.0 / left.numel())


@each_sampler
def test_all_known_gives_the_picture_and_none_known_gives_the_sampler(sampler):
    schedule = ScaledLinearSchedule()
    table = sampler.plan(schedule, 6)
    x = start(table, (3, *SHAPE))
    noise = given_noise(torch.zeros(6, 3, *SHAPE, dtype=torch.float64))
    everything = sampler(masked(table, schedule, torch.ones(1, 1, 4, 4)), table, x, noise=noise)
    assert torch.equal(everything, PICTURE)
    nothing = sampler(masked(table, schedule, torch.zeros(1, 1, 4, 4)), table, x, noise=noise)
    plain = oracle(mixture(SHAPE), schedule).bind(Condition(), table)
    assert torch.equal(nothing, sampler(plain, table, x, noise=noise))


def test_a_soft_mask_blends_and_a_classifier_is_silent_where_the_sample_is_known():
    table = DDIM().plan(ScaledLinearSchedule(), 2)
    ones = torch.ones(3, *SHAPE)
    soft = torch.tensor([0.0, 0.25, 0.5, 1.0])
    wrapped = Mask(x0=PICTURE, known=soft).wrap(
        lambda x, step: Prediction(x0=ones, score=ones), denoiser=None, cond=Condition(), null=None, table=table
    )
    prediction = wrapped(ones, table.steps[0])
    assert prediction.x0.dtype == torch.float32
    assert torch.allclose(prediction.x0, (1.0 - soft) * ones + soft * PICTURE.float(), atol=1e-6)
    assert torch.allclose(prediction.score, (1.0 - soft) * ones)
