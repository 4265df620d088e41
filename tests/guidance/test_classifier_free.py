"""Classifier-free guidance: its formula, what it costs, and that the space it is put in doesn't matter."""

import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.samplers.oracle import mixture, no_noise, relative, start
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import X0, Eps, V
from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import Condition
from zoo.guidance.classifier_free import ClassifierFree
from zoo.guidance.threshold import StaticThreshold
from zoo.samplers.ddim import DDIM
from zoo.schema.errors import UsageError

SHAPE = (2, 3, 3)
SCHEDULE = LinearSchedule()
TABLE = DDIM().plan(SCHEDULE, 6)
ASKED, NOTHING = mixture(SHAPE, seed=1), mixture(SHAPE, seed=2)


class Listener(nn.Module):
    """Knows two mixtures; label 1 asks for one of them, 0 for nothing."""

    def __init__(self, parameterization, extra=0):
        super().__init__()
        self.parameterization, self.extra = parameterization, extra
        self.rows, self.fields = [], []

    def forward(self, x, time, label, **fields):
        self.rows.append(len(x))
        self.fields.append(fields)
        x = x[:, :2]
        alpha, sigma = (float(v) for v in SCHEDULE((float(time[0]) + 1.0) / 1000))
        asked, nothing = (m.x0(x, alpha, sigma) for m in (ASKED, NOTHING))
        x0 = torch.where(label[:, None, None, None] == 1, asked, nothing)
        output = self.parameterization.target(x0, (x - alpha * x0) / sigma, alpha, sigma)
        return torch.cat([output, label[:, None, None, None].expand(x.shape)], 1) if self.extra else output


def labels(value, count=3):
    return Condition(label=torch.full((count,), value))


def guided(scale, *, parameterization=None, cond=None, null=None, variance=None, **keywords):
    parameterization = V() if parameterization is None else parameterization
    network = Listener(parameterization, **keywords)
    denoiser = Denoiser(network=network, schedule=SCHEDULE, parameterization=parameterization, variance=variance)
    cond = labels(1) if cond is None else cond
    wrapped = ClassifierFree(scale=scale).wrap(
        denoiser.bind(cond, TABLE),
        denoiser=denoiser,
        cond=cond,
        null=labels(0) if null is None else null,
        table=TABLE,
    )
    return wrapped, network


X = start(TABLE, (3, *SHAPE))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0, 7.5, -1.0])
def test_the_estimate_goes_from_null_past_the_condition(scale):
    step = TABLE.steps[2]
    asked, nothing = (m.x0(X, step.alpha, step.sigma) for m in (ASKED, NOTHING))
    estimate = guided(scale)[0](X, step).x0
    assert torch.allclose(estimate, nothing + scale * (asked - nothing), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 3), (0.0, 3), (4.0, 6)])
def test_a_step_costs_one_network_call(scale, rows):
    denoise, network = guided(scale)
    DDIM()(denoise, TABLE, X, noise=no_noise)
    assert network.rows == [rows] * 6


@pytest.mark.parametrize("parameterization", [Eps(), X0()])
def test_guiding_eps_v_or_x0_is_the_same(parameterization):
    by_v = DDIM()(guided(4.0)[0], TABLE, X, noise=no_noise)
    other = DDIM()(guided(4.0, parameterization=parameterization)[0], TABLE, X, noise=no_noise)
    assert torch.allclose(other, by_v, rtol=1e-9, atol=1e-9)
    # And it is the paper's formula on the network's own output, here eps.
    step = TABLE.steps[1]
    eps = [m.eps(X, step.alpha, step.sigma) for m in (ASKED, NOTHING)]
    x0 = (X - step.sigma * (eps[1] + 4.0 * (eps[0] - eps[1]))) / step.alpha
    assert torch.allclose(guided(4.0, parameterization=parameterization)[0](X, step).x0, x0, rtol=1e-9, atol=1e-9)


def test_a_negative_prompt_stands_in_the_place_of_nothing():
    plain = guided(4.0)[0](X, TABLE.steps[2]).x0
    swapped = guided(4.0, cond=labels(0), null=labels(1))[0](X, TABLE.steps[2]).x0
    assert relative(swapped, plain) > 1e-2


def test_what_isnt_said_in_words_is_in_both_halves():
    low = torch.ones(3, 1, 3, 3)
    level = torch.tensor([0.1, 0.2, 0.3])
    denoise, network = guided(4.0, cond=Condition(label=torch.ones(3).long(), concat=low, level=level))
    assert denoise(X, TABLE.steps[0]).x0.shape == X.shape
    assert network.fields[0]["level"].tolist() == pytest.approx([0.1, 0.2, 0.3] * 2)


def test_the_variance_is_the_conditions():
    prediction = guided(4.0, extra=1, variance="learned_range")[0](X, TABLE.steps[2])
    assert torch.equal(prediction.variance_logit, torch.ones_like(X))
    prediction = guided(4.0, extra=1, variance="learned")[0](X, TABLE.steps[2])
    assert torch.equal(prediction.log_variance, torch.ones_like(X))


def test_guidance_without_a_null_condition_is_refused():
    denoiser = Denoiser(network=Listener(V()), schedule=SCHEDULE, parameterization=V())
    bound = denoiser.bind(labels(1), TABLE)
    with refused("null-condition-missing", UsageError):
        ClassifierFree(scale=4.0).wrap(bound, denoiser=denoiser, cond=labels(1), null=None, table=TABLE)
    assert ClassifierFree(scale=1.0).wrap(bound, denoiser=denoiser, cond=labels(1), null=None, table=TABLE) is bound


def test_it_stands_first_so_that_nothing_is_dropped():
    denoiser = Denoiser(network=Listener(V()), schedule=SCHEDULE, parameterization=V())
    keywords = {"denoiser": denoiser, "cond": labels(1), "null": labels(0), "table": TABLE}
    inner = StaticThreshold().wrap(denoiser.bind(labels(1), TABLE), **keywords)
    with refused("guidance-order-wrong"):
        ClassifierFree(scale=4.0).wrap(inner, **keywords)
