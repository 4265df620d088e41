"""Classifier guidance: the gradient of a known classifier, and what samplers make of it."""

import math

import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.samplers.oracle import Mixture, bound_oracle, given_noise, mixture, no_noise, oracle, relative, start
from zoo.diffusion.parameterization import X0
from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import Condition, Prediction
from zoo.guidance.classifier import Classifier
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.dpmpp import DPMpp2M

SHAPE = (2, 3, 3)
SCHEDULE = LinearSchedule()


class Bayes(nn.Module):
    """p(component | x_t) of a mixture, exactly."""

    def __init__(self, data: Mixture) -> None:
        super().__init__()
        self.data = data

    def forward(self, x, time):
        alpha, sigma = (float(v) for v in SCHEDULE((float(time[0]) + 1.0) / SCHEDULE.T))
        offsets = x.double().flatten(1)[:, None] - alpha * self.data.means.flatten(1)
        variances = alpha**2 * self.data.deviations**2 + sigma**2
        dimensions = offsets.shape[-1]
        return self.data.weights.log() - 0.5 * (offsets**2).sum(-1) / variances - 0.5 * dimensions * variances.log()


def guided(data, table, label, *, scale=1.0, classifier=None):
    guidance = Classifier(classifier=Bayes(data) if classifier is None else classifier, scale=scale)
    denoiser = oracle(data, SCHEDULE, X0())
    cond = Condition(label=label)
    denoise = bound_oracle(data, SCHEDULE, table, X0())
    return guidance.wrap(denoise, denoiser=denoiser, cond=cond, null=None, table=table)


def component(data, k):
    """The mixture's component alone: what is left when the class is known."""
    return Mixture(torch.ones(1, dtype=torch.float64), data.means[k : k + 1], data.deviations[k : k + 1])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [DDIM(steps=40), DPMpp2M(steps=40)], ids=["ddim", "dpmpp-2m"])
def test_the_true_classifier_turns_the_mixture_into_its_component(sampler):
    # Bayes: with the exact grad log p(y | x_t), the guided ODE is that of the component.
    data = mixture(SHAPE)
    table = sampler.plan(SCHEDULE)
    x = start(table, (4, *SHAPE))
    label = torch.tensor([1, 1, 1, 1])
    made = sampler(guided(data, table, label), table, x, noise=no_noise)
    right = sampler(bound_oracle(component(data, 1), SCHEDULE, table, X0()), table, x, noise=no_noise)
    assert relative(made, right) < 1e-9
    for scale in (0.0, 0.5):
        assert relative(sampler(guided(data, table, label, scale=scale), table, x, noise=no_noise), right) > 1e-3


@pytest.mark.slow
def test_ddpm_moves_its_mean_by_the_variance_times_the_score():
    data = mixture(SHAPE)
    sampler = DDPM(steps=1000)
    table = sampler.plan(SCHEDULE)
    x = start(table, (2, *SHAPE))
    noise = torch.randn(1000, 2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = sampler(guided(data, table, torch.tensor([0, 0])), table, x, noise=given_noise(noise))
    right = sampler(bound_oracle(component(data, 0), SCHEDULE, table, X0()), table, x, noise=given_noise(noise))
    # Exact in the limit of many steps only: the algorithm linearises log p(y | x) over a step.
    assert relative(made, right) < 0.03
    free = sampler(bound_oracle(data, SCHEDULE, table, X0()), table, x, noise=given_noise(noise))
    assert relative(free, right) > 0.1


def test_the_score_is_the_gradient_of_the_log_probability():
    data = mixture(SHAPE)
    table = DDIM(steps=5).plan(SCHEDULE)
    step = table.steps[2]
    x = start(table, (2, *SHAPE))
    label = torch.tensor([0, 2])
    score = guided(data, table, label, scale=3.0)(x, step).score

    def log_p(x):
        time = torch.full((2,), step.t * 1000 - 1)
        return torch.log_softmax(Bayes(data)(x, time), 1)[torch.arange(2), label]

    nudge = torch.zeros_like(x)
    nudge[:, 1, 2, 0] = 1e-5
    slope = (log_p(x + nudge) - log_p(x - nudge)) / 2e-5
    torch.testing.assert_close(score[:, 1, 2, 0], 3.0 * slope, rtol=1e-5, atol=1e-7)


def test_it_works_in_inference_mode_and_leaves_no_graph():
    data = mixture(SHAPE)
    table = DDIM(steps=5).plan(SCHEDULE)
    label = torch.tensor([0, 2])
    convolution = nn.Sequential(nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4, 3)).requires_grad_(False)
    with torch.inference_mode():
        inside = torch.tensor([0, 2])
        x = start(table, (2, *SHAPE)).float()
        net = ClassifierOf(convolution)
        made = guided(data, table, inside, classifier=net)(x, table.steps[0])
    with torch.no_grad():
        plain = guided(data, table, label, classifier=net)(x.clone(), table.steps[0])
    assert not made.score.requires_grad
    assert float(made.score.abs().max()) > 0.0
    assert torch.equal(made.score, plain.score)
    assert convolution[0].weight.grad is None


class ClassifierOf(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, time):
        return self.inner(x)


def test_the_null_label_pulls_nowhere_and_scores_add_up():
    data = mixture(SHAPE)
    table = DDIM(steps=5).plan(SCHEDULE)
    x = start(table, (2, *SHAPE))
    prediction = guided(data, table, torch.tensor([1, 3]))(x, table.steps[1])
    assert float(prediction.score[0].abs().max()) > 0.0
    assert float(prediction.score[1].abs().max()) == 0.0
    twice = Classifier(classifier=Bayes(data)).wrap(
        guided(data, table, torch.tensor([1, 1])), denoiser=oracle(data, SCHEDULE), null=None, table=table,
        cond=Condition(label=torch.tensor([1, 1])),
    )  # fmt: skip
    torch.testing.assert_close(twice(x, table.steps[1]).score[0], 2 * prediction.score[0])


def test_what_it_cannot_do_is_told():
    data = mixture(SHAPE)
    table = DDIM(steps=5).plan(SCHEDULE)
    with refused("label-missing"):
        Classifier(classifier=Bayes(data)).wrap(
            lambda x, step: Prediction(x0=x), denoiser=None, cond=Condition(), null=None, table=table
        )

    class Spoilt(nn.Module):
        def forward(self, x, time):
            return x.flatten(1)[:, :3] * math.nan

    with refused("guidance-not-finite", naming="step 1 of 5"):
        guided(data, table, torch.tensor([1]), classifier=Spoilt())(start(table, (1, *SHAPE)), table.steps[0])
