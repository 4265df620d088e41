"""Posterior guidance against the posterior of a Gaussian, which is known, and through a whole pipeline."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.samplers.oracle import AngleSchedule, Mixture, no_noise, oracle, relative, start
from tests.tiny import TinyNet, randomise
from zoo.autoencoders.identity import Identity
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import X0, V
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Condition, Prediction, Step
from zoo.guidance.interval import LimitedInterval
from zoo.guidance.measurement import Blurred, Downsampled, Masked
from zoo.guidance.posterior import Posterior
from zoo.guidance.threshold import StaticThreshold
from zoo.images.space import Images
from zoo.pipeline.pipeline import Pipeline, Stage
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.dpmpp import DPMpp2M
from zoo.schema.errors import ConfigError, UsageError

SHAPE = (1, 4, 4)
DEVIATION, NOISE = 0.6, 0.2
MEAN = torch.linspace(-0.5, 0.5, 16, dtype=torch.float64).reshape(1, *SHAPE)
DATA = Mixture(torch.ones(1, dtype=torch.float64), MEAN, torch.tensor([DEVIATION], dtype=torch.float64))
TRUTH = torch.from_numpy(np.random.default_rng(3).standard_normal((1, *SHAPE))) * DEVIATION + MEAN
KNOWN = torch.ones(1, 1, 4, 4)
KNOWN[..., 2:] = 0.0
MEASUREMENTS = {"masked": Masked(), "downsampled": Downsampled(factor=2), "blurred": Blurred(deviation=0.8)}
each_measurement = pytest.mark.parametrize("measurement", MEASUREMENTS.values(), ids=MEASUREMENTS)
SCHEDULE = AngleSchedule()
ROWS = 400


def measured(measurement, **settings):
    """Guidance with a picture, and the posterior's mean and covariance by linear algebra."""
    posterior = Posterior(measurement=measurement, noise=NOISE, deviation=DEVIATION, **settings)
    known = KNOWN if measurement.hears_mask else None
    h = measurement.bind(SHAPE, known)(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).flatten(1).T
    y = (h @ TRUTH.flatten()).reshape(1, 1, *[int(math.sqrt(len(h)))] * 2) + 0.1
    seen = h.abs().sum(1) > 0.0  # a masked y has rows that say nothing
    h, flat = h[seen], y.flatten()[seen]
    precision = torch.eye(16, dtype=torch.float64) / DEVIATION**2 + h.T @ h / NOISE**2
    covariance = torch.linalg.inv(precision)
    mean = MEAN.flatten() + covariance @ h.T @ (flat - h @ MEAN.flatten()) / NOISE**2
    return posterior.given(y, shape=SHAPE, known=known), mean, covariance


def draw(guidance, sampler=None, *, rows=ROWS, interval=(0.98, 0.0)):
    sampler = DPMpp2M(steps=30) if sampler is None else sampler
    denoiser = oracle(DATA, SCHEDULE, X0())
    table = sampler.plan(SCHEDULE, interval=interval)
    unit = torch.from_numpy(np.random.default_rng(0).standard_normal((rows // 2, *SHAPE)))
    x = torch.cat([unit, -unit]) * table.start.sigma  # antithetic: the mean of what is linear in it has no error
    x = x + table.start.alpha * MEAN
    denoise = guidance.wrap(
        denoiser.bind(Condition(), table), denoiser=denoiser, cond=Condition(), null=None, table=table
    )
    rng = np.random.default_rng(1)

    def noise(step, draw=0):
        return torch.from_numpy(rng.standard_normal((rows, *SHAPE)))

    return sampler(denoise, table, x, noise=no_noise if isinstance(sampler, DPMpp2M) else noise).flatten(1)


@each_measurement
def test_pigdm_has_the_gaussians_posterior_at_any_noise(measurement):
    # Of a Gaussian prior all is known: E[x0 | x_t, y] at any t, exactly.
    guidance, _, _ = measured(measurement)
    known = KNOWN if measurement.hears_mask else None
    h = measurement.bind(SHAPE, known)(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).flatten(1).T
    denoiser = oracle(DATA, SCHEDULE, X0())
    for t in (0.2, 0.5, 0.9):
        alpha, sigma = (float(v) for v in SCHEDULE(t))
        step = Step(0, t, alpha, sigma, 0.0, 1.0, 0.0)
        x = start(DDIM().plan(SCHEDULE, 2), (3, *SHAPE))
        table = DDIM().plan(SCHEDULE, 2)
        denoise = guidance.wrap(
            denoiser.bind(Condition(), table), denoiser=denoiser, cond=Condition(), null=None, table=table
        )
        prediction = denoise(x, step)
        folded = prediction.x0 + sigma**2 / alpha * prediction.score
        precision = (1 / DEVIATION**2 + alpha**2 / sigma**2) * torch.eye(16, dtype=torch.float64) + h.T @ h / NOISE**2
        right = MEAN.flatten() / DEVIATION**2 + alpha / sigma**2 * x.flatten(1) + guidance.y.flatten() @ h / NOISE**2
        torch.testing.assert_close(folded.flatten(1), torch.linalg.solve(precision, right.T).T, rtol=1e-9, atol=1e-9)


@each_measurement
def test_a_run_by_pigdm_samples_the_posterior(measurement):
    guidance, mean, covariance = measured(measurement)
    made = draw(guidance)
    assert relative(made.mean(0), mean) < 0.02
    assert relative(torch.cov(made.T), covariance) < 0.35  # sampling error of 400 rows in 16 dimensions is 0.2
    prior = draw(StaticThreshold(low=-99.0, high=99.0))
    assert relative(prior.mean(0), mean) > 0.2
    assert relative(torch.cov(prior.T), covariance) > 0.5


def test_ancestral_sampling_takes_the_same_term():
    guidance, mean, _ = measured(Masked())
    assert relative(draw(guidance, DDPM(steps=150)).mean(0), mean) < 0.1


@pytest.mark.slow
@each_measurement
def test_dps_comes_near_the_mean_and_any_sampler_takes_it(measurement):
    guidance, mean, _ = measured(measurement, method="dps")
    far = relative(MEAN.flatten(), mean)
    for sampler in (DPMpp2M(steps=30), DPMpp2M(steps=90), DDPM(steps=90)):
        assert relative(draw(guidance, sampler).mean(0), mean) < 0.4 * far


@pytest.mark.parametrize("method", ["pigdm", "dps"])
def test_a_sample_is_its_own_in_any_batch(method):
    guidance, _, _ = measured(Downsampled(factor=2), method=method)
    denoiser = oracle(DATA, SCHEDULE, X0())
    table = DDIM().plan(SCHEDULE, 4)
    denoise = guidance.wrap(
        denoiser.bind(Condition(), table), denoiser=denoiser, cond=Condition(), null=None, table=table
    )
    x = start(table, (3, *SHAPE))
    whole, alone = denoise(x, table.steps[1]).score, denoise(x[1:2], table.steps[1]).score
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-9, atol=1e-12)
    assert not whole.requires_grad


def test_scores_add_up_and_scale_0_and_pure_noise_have_none():
    guidance, _, _ = measured(Masked())
    x = start(DDIM().plan(SCHEDULE, 2), (2, *SHAPE))
    step = Step(0, 0.5, 0.7, 0.7, 0.0, 1.0, 0.0)

    def scored(x, step):
        return Prediction(x0=0.5 * x, score=torch.ones_like(x), x0_cond=0.1 * x)

    def plain(x, step):
        return Prediction(x0=0.5 * x)

    keywords = {"denoiser": None, "cond": Condition(), "null": None, "table": DDIM().plan(SCHEDULE, 2)}
    alone, both = (guidance.wrap(d, **keywords)(x, step) for d in (plain, scored))
    torch.testing.assert_close(both.score, alone.score + 1.0)
    assert both.x0_cond is not None
    assert guidance.wrap(plain, **keywords)(x, Step(0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0)).score is None
    none, _, _ = measured(Masked(), scale=0.0)
    assert none.wrap(plain, **keywords) is plain
    with refused("gradient-missing"):
        guidance.wrap(lambda x, step: Prediction(x0=x.detach()), **keywords)(x, step)


# Through a pipeline, whose tensors are inference mode's.


class Prompts(nn.Module):
    def forward(self, prompts):
        return Condition(tokens=torch.ones(len(prompts), 2, 16), mask=torch.ones(len(prompts), 2, dtype=torch.bool))

    def null(self, batch):
        return self([""] * batch)


def pipeline(measurement, **settings):
    denoiser = Denoiser(network=randomise(TinyNet(), 1), schedule=CosineSchedule(), parameterization=V())
    posterior = Posterior(measurement=measurement, noise=0.05, **settings)
    stage = Stage(
        name="base", denoiser=denoiser, autoencoder=Identity(), sampler=DDIM(steps=6), space=Images(8),
        listens=("text",),
        guidance=(LimitedInterval(guidance=posterior, high=50.0), StaticThreshold()),
    )  # fmt: skip
    return Pipeline(conditioners={"text": Prompts()}, stages=[stage])


def test_a_call_gives_the_measured_picture():
    picture = torch.linspace(0.1, 0.9, 3 * 16).reshape(3, 4, 4)
    pipe = pipeline(Downsampled(factor=2))
    # Thresholding comes after, so it doesn't touch the score; the last x0 is the network's, moved towards the picture.
    made = pipe("", image=picture, n=2).tensor
    assert made.shape == (2, 3, 8, 8)
    means = torch.nn.functional.avg_pool2d(made, 2)
    free = torch.nn.functional.avg_pool2d(pipeline(Downsampled(factor=2), scale=0.0)("", image=picture, n=2).tensor, 2)
    assert float((means - picture).abs().mean()) < 0.5 * float((free - picture).abs().mean())


def test_a_mask_says_what_is_not_known_and_what_is_painted_there_counts_for_nothing():
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1.0
    picture = torch.full((3, 8, 8), 0.8)
    other = torch.where(mask.bool(), torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)), picture)
    pipe = pipeline(Masked())
    made = pipe("", image=picture, mask=mask)
    assert torch.equal(made.tensor, pipe("", image=other, mask=mask).tensor)
    assert not torch.equal(made.tensor[..., :4], picture[None, ..., :4])  # the measurement has noise: nothing is pasted


@pytest.mark.parametrize(
    ("measurement", "call", "refusal"),
    [
        (Downsampled(factor=2), {}, "image-missing"),
        (Downsampled(factor=2), {"image": torch.ones(3, 4, 4), "mask": torch.ones(4, 4)}, "image-unfit"),
        (Downsampled(factor=2), {"image": torch.ones(3, 4, 4), "strength": 0.5}, "image-is-no-start"),
        (Downsampled(factor=2), {"image": torch.ones(3, 8, 8)}, "image-shape-wrong"),
        (Downsampled(factor=2), {"image": torch.ones(3, 4, 4), "size": (8, 9)}, "size-indivisible"),
        (Masked(), {"image": torch.ones(3, 8, 8)}, "image-unfit"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(measurement, call, refusal):
    with refused(refusal, UsageError):
        pipeline(measurement)("", **call)


def test_wrong_settings_are_refused():
    for settings, refusal in (
        ({"measurement": Masked(), "method": "ddrm"}, "choice-unknown"),
        ({"measurement": Masked(), "noise": -1.0}, "number-out-of-range"),
        ({"measurement": Blurred()}, "measurement-noise-missing"),
    ):
        with refused(refusal, ConfigError):
            Posterior(**settings)
    with refused("image-missing"):
        Posterior(measurement=Masked()).wrap(no_noise, denoiser=None, cond=Condition(), null=None, table=None)
