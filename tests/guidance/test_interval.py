"""A limited interval follows its guidance inside and asks the plain denoiser outside."""

import dataclasses

import pytest
import torch

import zoo
from tests.refusals import refused
from tests.tiny import tiny_pipeline
from zoo.diffusion.types import Condition, Prediction, Step, StepTable
from zoo.families.diffusers.export import _read_me
from zoo.guidance.classifier import Classifier
from zoo.guidance.classifier_free import ClassifierFree
from zoo.guidance.interval import LimitedInterval, at_scale, holds_classifier_free
from zoo.guidance.threshold import StaticThreshold
from zoo.schema.errors import ConfigError


def step(alpha, sigma):
    return Step(index=0, t=0.5, alpha=alpha, sigma=sigma, t_next=0.0, alpha_next=1.0, sigma_next=0.0)


@pytest.mark.parametrize(
    ("alpha", "sigma", "inside"),
    [(1.0, 0.5, False), (1.0, 0.6, True), (0.5, 0.3, True), (1.0, 2.0, True), (0.5, 1.1, False), (0.0, 1.0, False)],
)
def test_the_guidance_is_followed_between_low_and_high_only(alpha, sigma, inside):
    def inner(x, step):
        return Prediction(x0=3.0 * x)

    limited = LimitedInterval(guidance=StaticThreshold(), low=0.5, high=2.0).wrap(
        inner, denoiser=None, cond=Condition(), null=None, table=StepTable(())
    )
    x0 = limited(torch.ones(1, 1), step(alpha, sigma)).x0
    assert float(x0) == (1.0 if inside else 3.0)


def test_an_open_interval_holds_pure_noise_too():
    limited = LimitedInterval(guidance=StaticThreshold()).wrap(
        lambda x, step: Prediction(x0=3.0 * x), denoiser=None, cond=Condition(), null=None, table=StepTable(())
    )
    assert float(limited(torch.ones(1, 1), step(0.0, 1.0)).x0) == 1.0


def test_an_empty_interval_is_refused():
    with refused("interval-invalid", ConfigError):
        LimitedInterval(guidance=StaticThreshold(), low=2.0, high=2.0)


UNCONDITIONAL = {
    "network": {
        "name": "unet", "in_channels": 4, "out_channels": 4, "attention": "plain", "heads": 4, "context_width": None,
    },
    "schedule": "cosine", "parameterization": "v",
}  # fmt: skip
BLOCK = {"name": "limited-interval", "guidance": {"name": "classifier-free", "scale": 3.0}, "low": 0.3}


def test_a_config_may_limit_classifier_free_guidance_and_shortcuts_still_find_it():
    limited = zoo.check("latent-text2img", {"stages.0.guidance": [BLOCK]})
    config = zoo.check(limited, guidance=5.0)
    assert config["stages"][0]["guidance"][0]["guidance"]["scale"] == 5.0


def test_a_guidance_that_is_held_by_another_is_checked_as_well():
    wrong = {**BLOCK, "guidance": {"name": "classifier-free", "scael": 3.0}}
    with refused("argument-unknown", naming="scael"):
        zoo.check("latent-text2img", {"stages.0.guidance": [wrong]})
    deaf = {**BLOCK, "guidance": "classifier-free"}
    unconditional = {"stages.0.guidance": [deaf], "stages.0.listens": [], "stages.0.denoiser": UNCONDITIONAL}
    with refused("conditioner-missing", naming="classifier-free"):
        zoo.check("latent-text2img", unconditional)


def test_a_call_sets_the_scale_of_a_limited_guidance():
    limited = LimitedInterval(guidance=LimitedInterval(guidance=ClassifierFree(scale=3.0)), low=0.1)
    assert holds_classifier_free(limited)
    assert not holds_classifier_free(LimitedInterval(guidance=StaticThreshold()))
    changed = at_scale(limited, 7)
    assert (changed.low, changed.guidance.guidance.scale) == (0.1, 7.0)


def test_networks_that_a_held_guidance_has_move_with_the_pipeline():
    pipe = tiny_pipeline()
    judge = torch.nn.Linear(2, 2)
    held = LimitedInterval(guidance=LimitedInterval(guidance=Classifier(classifier=judge)), low=0.1)
    pipe.stages = [dataclasses.replace(pipe.stages[0], guidance=(held,))]
    assert judge in pipe.modules()
    assert pipe.to(dtype=torch.float64).stages[0].guidance[0].guidance.guidance.classifier.weight.dtype == torch.float64


@pytest.mark.parametrize(
    "guidance", [ClassifierFree(scale=2.5), LimitedInterval(guidance=ClassifierFree(scale=2.5), low=0.3)]
)
def test_an_exported_folder_says_the_scale_wherever_it_stands(guidance):
    pipe = tiny_pipeline()
    stage = dataclasses.replace(pipe.stages[0], guidance=(StaticThreshold(), guidance))
    assert "guidance_scale=2.5)" in _read_me(pipe, stage)
