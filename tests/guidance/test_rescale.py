"""Rescaled guidance has the spread of the condition's own prediction, in the space that is named."""

import pytest
import torch

from tests.guidance.test_classifier_free import TABLE, guided, labels
from tests.refusals import refused
from tests.samplers.oracle import no_noise, relative, start
from zoo.diffusion.schedules import FlowSchedule
from zoo.diffusion.types import Condition, Prediction
from zoo.guidance.interval import LimitedInterval
from zoo.guidance.rescale import Rescale
from zoo.guidance.threshold import StaticThreshold
from zoo.samplers.ddim import DDIM
from zoo.schema.errors import ConfigError

X = start(TABLE, (3, 2, 3, 3))
STEP = TABLE.steps[3]


def spread(x0, space):
    eps = (X - STEP.alpha * x0) / STEP.sigma
    values = {"x0": x0, "eps": eps, "v": STEP.alpha * eps - STEP.sigma * x0}[space]
    return values.flatten(1).std(dim=1)


def rescaled(space, strength=1.0, *, scale=4.0, inner=None):
    denoise = guided(scale)[0] if inner is None else inner
    keywords = {"denoiser": None, "cond": labels(1), "null": labels(0), "table": TABLE}
    return Rescale(space=space, strength=strength).wrap(denoise, **keywords)


@pytest.mark.parametrize("space", ["x0", "eps", "v"])
def test_each_sample_gets_the_deviation_that_the_condition_alone_has(space):
    alone, loud = guided(1.0)[0](X, STEP).x0, guided(4.0)[0](X, STEP).x0
    tamed = rescaled(space)(X, STEP).x0
    torch.testing.assert_close(spread(tamed, space), spread(alone, space), rtol=1e-9, atol=0.0)
    assert relative(spread(loud, space), spread(alone, space)) > 0.01
    others = {"x0", "eps", "v"} - {space}
    assert all(relative(rescaled(other)(X, STEP).x0, tamed) > 1e-3 for other in others)


def test_half_a_strength_goes_half_way_and_none_nowhere():
    loud, tamed = guided(4.0)[0](X, STEP).x0, rescaled("v")(X, STEP).x0
    torch.testing.assert_close(rescaled("v", 0.5)(X, STEP).x0, 0.5 * (loud + tamed))
    assert torch.equal(rescaled("v", 0.0)(X, STEP).x0, loud)


def test_nothing_changes_where_nothing_guides():
    plain = guided(1.0)[0](X, STEP).x0
    assert torch.equal(rescaled("v", scale=1.0)(X, STEP).x0, plain)

    def inner(x, step):
        return Prediction(x0=3.0 * x, x0_cond=None if step.sigma > 0.9 else x)

    limited = LimitedInterval(guidance=StaticThreshold(low=-9.0, high=9.0)).wrap(
        inner, denoiser=None, cond=Condition(), null=None, table=TABLE
    )
    tamed = rescaled("x0", inner=limited)
    assert torch.equal(tamed(X, TABLE.steps[0]).x0, limited(X, TABLE.steps[0]).x0)
    assert relative(tamed(X, TABLE.steps[-1]).x0, limited(X, TABLE.steps[-1]).x0) > 0.1


def test_a_run_ends_calmer_and_costs_no_call_more():
    ends = []
    for strength in (0.0, 0.7):
        denoise, network = guided(8.0)
        keywords = {"denoiser": None, "cond": labels(1), "null": labels(0), "table": TABLE}
        wrapped = Rescale(space="x0", strength=strength).wrap(denoise, **keywords)
        ends.append(DDIM()(wrapped, TABLE, X, noise=no_noise))
        assert network.rows == [6] * len(TABLE)
    assert float(ends[1].std()) < float(ends[0].std())


def test_an_even_prediction_stays_and_wrong_settings_are_refused():
    flat = rescaled("x0", inner=lambda x, step: Prediction(x0=torch.ones_like(x), x0_cond=x))
    assert torch.equal(flat(X, STEP).x0, torch.ones_like(X))
    for arguments, refusal in (
        ({"space": "rgb"}, "choice-unknown"),
        ({"space": "v", "strength": 2.0}, "number-out-of-range"),
    ):
        with refused(refusal, ConfigError):
            Rescale(**arguments)
    with refused("alpha-zero-undefined"):
        Rescale(space="eps").wrap(
            lambda x, step: Prediction(x0=x), denoiser=None, cond=Condition(), null=None,
            table=DDIM().plan(FlowSchedule(), 3),
        )  # fmt: skip
