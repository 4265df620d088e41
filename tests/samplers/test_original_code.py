"""Samplers against recorded runs of the original code: OpenAI's SpacedDiffusion and latent diffusion's DDIMSampler.

The config.json of each recording says which commit, which settings, and the formula that stands for the network.
"""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests import golden_sets
from tests.samplers.oracle import GivenGrid, given_noise, record_states, relative
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import X0, Eps
from zoo.diffusion.schedules import CosineSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.diffusion.types import Condition, Prediction
from zoo.guidance.classifier_free import ClassifierFree
from zoo.guidance.threshold import StaticThreshold
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.grid import Leading, Linspace


def recorded(name):
    folder = golden_sets.folder(name)
    settings = json.loads((folder / "config.json").read_text())
    return load_file(folder / "io.safetensors"), {case["name"]: case for case in settings["cases"]}


def noise_estimate(x, alpha_bar, mu, s):
    """eps of the data 0.5 N(mu, s^2 I) + 0.5 N(-mu, s^2 I)."""
    v = alpha_bar * s**2 + 1.0 - alpha_bar
    inner = (x.double() * mu).sum((1, 2, 3), keepdim=True)
    mean = alpha_bar**0.5 * mu * torch.tanh(alpha_bar**0.5 * inner / v)
    return (1.0 - alpha_bar) ** 0.5 / v * (x.double() - mean)


OPENAI, OPENAI_CASES = recorded("sampling/guided_diffusion_excerpt")


class OpenAINetwork(nn.Module):
    def __init__(self, case, schedule):
        super().__init__()
        self.case, self.alphas_bar = case, schedule.alphas_bar
        self.times = []

    def forward(self, x, time):
        t = float(time[0])
        self.times.append(t)
        index = round(t * self.case["steps"] / 1000) if self.case["rescale_timesteps"] else round(t)
        alpha_bar = float(self.alphas_bar[index])
        output = noise_estimate(x, alpha_bar, OPENAI["mu"], self.case["s"])
        if self.case["mean_type"] == "START_X":
            output = (x - (1.0 - alpha_bar) ** 0.5 * output) / alpha_bar**0.5
        if self.case["var_type"] == "LEARNED_RANGE":
            output = torch.cat([output, 0.9 * torch.sin(3.0 * x + 0.01 * t)], dim=1)
        return output


class Classifier:
    """The recorded cond_fn as guidance: it says grad log p(y | x_t)."""

    def __init__(self, scale):
        self.scale = scale

    def wrap(self, denoise, *, denoiser, cond, null, table):
        def guided(x, step):
            t = denoiser.time_input(step.t)
            score = self.scale * (1.0 + t / 1000.0) * (OPENAI["centers"][OPENAI["labels"]] - x)
            return denoise(x, step)._replace(score=score)

        return guided


def openai_run(name, *, sampler=None, clip=None):
    case = OPENAI_CASES[name]
    if case["noise_schedule"] == "cosine":
        schedule = CosineSchedule(steps=case["steps"])
    else:
        scale = 1000 / case["steps"]
        schedule = LinearSchedule(steps=case["steps"], beta_start=scale * 1e-4, beta_end=scale * 0.02)
    indices = OPENAI.get(f"{name}/timestep_map", torch.arange(case["steps"]))
    grid = GivenGrid(tuple(indices.tolist()))
    if case["kind"] == "ddim_sample_loop":
        kind = DDIM(eta=case["eta"], grid=grid)
    else:
        kind = DDPM(variance="fixed_large" if case["var_type"] == "FIXED_LARGE" else "fixed_small", grid=grid)
    sampler = kind if sampler is None else sampler
    denoiser = Denoiser(
        network=OpenAINetwork(case, schedule),
        schedule=schedule,
        parameterization=X0() if case["mean_type"] == "START_X" else Eps(),
        time_input="index1000" if case["rescale_timesteps"] else "index",
        variance="learned_range" if case["var_type"] == "LEARNED_RANGE" else None,
    )
    table = sampler.plan(schedule, len(indices))
    denoise = denoiser.bind(Condition(), table)
    guidance = [StaticThreshold()] if (case["clip_denoised"] if clip is None else clip) else []
    guidance += [Classifier(case["cond_scale"])] if "cond_scale" in case else []
    for wrapper in guidance:
        denoise = wrapper.wrap(denoise, denoiser=denoiser, cond=Condition(), null=None, table=table)
    states = []
    sampler(denoise, table, OPENAI["x_T"], noise=given_noise(OPENAI["noise"]), after_step=record_states(states))
    return torch.stack(states), denoiser.network.times


def excerpt(states):
    """The states that are in the repository: the first, the middle and the last."""
    return states[[0, len(states) // 2, -1]]


def close(states, expected):
    return torch.allclose(states, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", OPENAI_CASES)
def test_openai_states_are_met(name):
    assert close(excerpt(openai_run(name)[0]), OPENAI[f"{name}/sample"])


@pytest.mark.gold("sampling/guided_diffusion")
@pytest.mark.parametrize("name", OPENAI_CASES)
def test_every_openai_state_and_timestep_is_met(name):
    whole = recorded("sampling/guided_diffusion")[0]
    states, times = openai_run(name)
    assert close(states, whole[f"{name}/f64/sample"])
    assert times == pytest.approx(whole[f"{name}/model_timesteps"].tolist())


@pytest.mark.parametrize("name", [n for n, case in OPENAI_CASES.items() if case["clip_denoised"]])
def test_openai_states_are_missed_without_clipping(name):
    assert relative(excerpt(openai_run(name, clip=False)[0]), OPENAI[f"{name}/sample"]) > 1e-4


def test_openai_learned_range_is_missed_by_another_variance(monkeypatch):
    name = "p_learned_range_10_8_6"
    monkeypatch.setitem(OPENAI_CASES, name, {**OPENAI_CASES[name], "var_type": "FIXED_LARGE"})
    assert relative(excerpt(openai_run(name)[0]), OPENAI[f"{name}/sample"]) > 1e-4


def test_a_learned_log_variance_is_taken_as_it_is_and_not_as_a_place_in_the_range():
    schedule = LinearSchedule()
    table = DDPM(variance="fixed_large").plan(schedule, 5)
    x, noise = OPENAI["x_T"], given_noise(OPENAI["noise"])

    def told(**second):
        def denoise(x, step):
            fixed = step.own["variance"]
            large = torch.full_like(x, math.log(fixed)) if fixed else torch.zeros_like(x)
            return Prediction(x0=0.5 * x, **dict.fromkeys(second, large))

        return DDPM()(denoise, table, x, noise=noise)

    fixed = DDPM()(lambda x, step: Prediction(x0=0.5 * x), table, x, noise=noise)
    assert relative(told(log_variance=True), fixed) < 1e-12
    assert relative(told(variance_logit=True), fixed) > 1e-2


def test_openai_4000_step_models_are_handed_rescaled_indices():
    _, times = openai_run("p_rescaled_4000_cosine")
    assert times == [int(i) * 1000 / 4000 for i in OPENAI["p_rescaled_4000_cosine/timestep_map"].flip(0)]


def test_openai_spacings_are_grids():
    schedule = LinearSchedule()
    assert np.allclose(
        schedule.index_from_t(Leading(offset=0)(schedule, 25))[::-1], OPENAI["ddim25_eta0/timestep_map"].numpy()
    )
    assert np.allclose(
        schedule.index_from_t(Linspace()(schedule, 20))[::-1], OPENAI["p_classifier/timestep_map"].numpy()
    )


LDM, LDM_CASES = recorded("sampling/ldm_excerpt")


class LDMNetwork(nn.Module):
    def __init__(self, schedule):
        super().__init__()
        self.alphas_bar = schedule.alphas_bar

    def forward(self, x, time, vector):
        alpha_bar = float(self.alphas_bar[int(time[0])])
        m = vector.double()[:, :, None, None] * LDM["mu"].double()
        s = 0.4
        v = alpha_bar * s**2 + 1.0 - alpha_bar
        inner = (x.double() * m).sum((1, 2, 3), keepdim=True)
        eps = (1.0 - alpha_bar) ** 0.5 / v * (x.double() - alpha_bar**0.5 * m * torch.tanh(alpha_bar**0.5 * inner / v))
        return eps.float()


DDIM_CASES = [name for name, case in LDM_CASES.items() if case["sampler"] == "DDIMSampler"]


def ldm_run(name, *, sampler=None, **changes):
    case = LDM_CASES[name]
    schedule = ScaledLinearSchedule(beta_start=case["linear_start"], beta_end=case["linear_end"])
    if sampler is None:
        sampler = DDIM(**{"eta": case["eta"], "grid": Leading(offset=1), "final": "first", **changes})
    denoiser = Denoiser(network=LDMNetwork(schedule), schedule=schedule, parameterization=Eps())
    cond, null = (Condition(vector=LDM[k][:, None]) for k in ("cond", "uncond"))
    table = sampler.plan(schedule, case["S"])
    denoise = ClassifierFree(scale=case["scale"]).wrap(
        denoiser.bind(cond, table), denoiser=denoiser, cond=cond, null=null, table=table
    )
    reports = []
    end = sampler(denoise, table, LDM["x_T"], noise=given_noise(LDM["noise"]), callback=reports.append)
    return end, torch.stack([r.x_t for r in reports])


# The original rounds its tables to float32.
@pytest.mark.parametrize("name", DDIM_CASES)
def test_latent_diffusion_is_met(name):
    end, states = ldm_run(name)
    assert relative(states, LDM[f"{name}/call_x"]) < 1e-5
    assert relative(end, LDM[f"{name}/sample"]) < 1e-5


@pytest.mark.parametrize("name", DDIM_CASES)
@pytest.mark.parametrize("changes", [{"final": "clean"}, {"grid": Leading(offset=0)}, {"eta": 0.5}])
def test_latent_diffusion_is_missed_with_one_switch_flipped(name, changes):
    assert relative(ldm_run(name, **changes)[0], LDM[f"{name}/sample"]) > 1e-4
