"""Solvers against recorded runs of k-diffusion, EDM, score SDE and latent diffusion's PLMS; see the JSON files."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.samplers.oracle import relative
from tests.samplers.test_original_code import LDM, ldm_run  # noqa: F401
from zoo.samplers import langevin
from zoo.samplers.dpmpp_sde import DPMpp2MSDE, DPMppSDE
from zoo.samplers.euler import Euler, EulerAncestral
from zoo.samplers.grid import Karras
from zoo.samplers.heun import EDM, Heun
from zoo.samplers.multistep import LMS
from zoo.schedules import VESchedule
from zoo.types import Prediction

GOLDEN = Path(__file__).parents[1] / "golden" / "sampling"
K, NVIDIA, SONG = (load_file(GOLDEN / f"{name}.safetensors") for name in ("k_diffusion", "edm", "score_sde"))
WIDE = VESchedule(sigma_min=0.001, sigma_max=200.0)
GRID = Karras(sigma_min=0.02, sigma_max=20.0)
CASES = {
    "euler": Euler(grid=GRID),
    "euler_ancestral": EulerAncestral(grid=GRID),
    "heun": Heun(grid=GRID),
    "heun_churn": EDM(grid=GRID, s_churn=8.0, s_min=0.05, s_max=50.0, s_noise=1.003),
    "dpmpp_2m_sde": DPMpp2MSDE(grid=GRID),
    "dpmpp_2m_sde_heun": DPMpp2MSDE(grid=GRID, solver="heun"),
    "dpmpp_sde": DPMppSDE(grid=GRID),
    "lms": LMS(grid=GRID),
}


def denoiser(mu):
    def denoise(x, step):
        v = 0.16 + step.sigma**2
        mean = mu * torch.tanh((x * mu).sum((1, 2, 3), keepdim=True) / v)
        return Prediction(x0=(0.16 * x + step.sigma**2 * mean) / v)

    return denoise


@pytest.mark.parametrize("name", CASES)
def test_k_diffusion_is_met(name):
    sampler = CASES[name]
    table = sampler.plan(WIDE, 10)
    per_step = 2 if name == "heun_churn" else 1
    end = sampler(
        denoiser(K["mu"]), table, K[f"{name}/f64/x_start"], noise=lambda row, draw=0: K["noise"][row // per_step]
    )
    assert [s.sigma for s in table.steps] == pytest.approx(K[f"{name}/f64/call_sigma"].tolist(), rel=1e-9)
    assert relative(end, K[f"{name}/f64/sample"]) < 1e-6


@pytest.mark.parametrize(("name", "steps", "churn"), [("edm_deterministic", 10, 0.0), ("edm_stochastic", 12, 30.0)])
def test_edm_is_met(name, steps, churn):
    sampler = EDM(grid=Karras(sigma_min=0.002, sigma_max=80.0), s_churn=churn)
    table = sampler.plan(WIDE, steps)
    x = NVIDIA["x_T"] * table.start.sigma
    end = sampler(denoiser(NVIDIA["mu"]), table, x, noise=lambda row, draw=0: NVIDIA["noise"][row // 2])
    assert relative(end, NVIDIA[f"{name}/sample"]) < 1e-8


@dataclass(frozen=True)
class Geometric:
    """The eight levels of the recorded run."""

    def __call__(self, schedule, steps):
        sigmas = 0.01 * (2000.0) ** (torch.arange(steps - 1, -1, -1).double() / (steps - 1))
        return schedule.t_from_log_snr((-2.0 * sigmas.log()).numpy())


def test_song_is_met_with_the_batch_mean_of_norms(monkeypatch):
    sampler = langevin.PredictorCorrector(grid=Geometric(), predictor="reverse-diffusion")
    table = sampler.plan(WIDE, 8)
    noise, mu = SONG["ve_pc/noise"].double(), SONG["mu"].double()

    def denoise(x, step):
        # The original's network is asked a little beside the level of its step (linspace(1, 1e-5)).
        v = 0.16 + float(SONG["ve_pc/labels"][step.index]) ** 2
        score = (mu * torch.tanh((x * mu).sum((1, 2, 3), keepdim=True) / v) - x) / v
        return Prediction(x0=x + step.sigma**2 * score)

    def end():
        return sampler(denoise, table, noise[0] * table.start.sigma, noise=lambda row, draw=0: noise[row + 1])

    own = relative(end(), SONG["ve_pc/sample"])
    mine = langevin.norms
    monkeypatch.setattr(langevin, "norms", lambda x: mine(x).mean())
    assert relative(end(), SONG["ve_pc/sample"]) < 1e-4 < own
