"""Solvers against recorded runs of k-diffusion, EDM, score SDE and latent diffusion's PLMS; see their config.json."""

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from tests import golden_sets
from tests.samplers.oracle import relative
from tests.samplers.test_original_code import LDM, ldm_run
from zoo.diffusion.schedules import VESchedule
from zoo.diffusion.types import Prediction
from zoo.samplers import langevin
from zoo.samplers.dpm_solver import DPMSolver
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.dpmpp_2s import DPMpp2S
from zoo.samplers.dpmpp_sde import DPMpp2MSDE, DPMppSDE
from zoo.samplers.euler import Euler, EulerAncestral
from zoo.samplers.grid import Karras, Leading
from zoo.samplers.heun import EDM, Heun
from zoo.samplers.multistep import LMS, PLMS

K, NVIDIA, SONG = (
    load_file(golden_sets.folder(f"sampling/{name}") / "io.safetensors") for name in ("k_diffusion", "edm", "score_sde")
)
WIDE = VESchedule(sigma_min=0.001, sigma_max=200.0)
GRID = Karras(sigma_min=0.02, sigma_max=20.0)
CASES = {
    "euler": Euler(grid=GRID),
    "euler_churn": EDM(grid=GRID, solver="euler", s_churn=4.0, s_min=0.05, s_max=5.0, s_noise=1.007),
    "euler_ancestral": EulerAncestral(grid=GRID),
    "heun": Heun(grid=GRID),
    "heun_churn": EDM(grid=GRID, s_churn=8.0, s_min=0.05, s_max=50.0, s_noise=1.003),
    "dpm_2": DPMSolver(grid=GRID, order=2),
    "dpmpp_2m": DPMpp2M(grid=GRID),
    "dpmpp_2s_ancestral": DPMpp2S(grid=GRID, eta=1.0),
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


def k_run(name, sampler):
    table = sampler.plan(WIDE, 10)
    per_step = 2 if name in ("heun_churn", "dpmpp_2s_ancestral") else 1
    end = sampler(
        denoiser(K["mu"]), table, K[f"{name}/f64/x_start"], noise=lambda row, draw=0: K["noise"][row // per_step]
    )
    return table, relative(end, K[f"{name}/f64/sample"])


def test_every_recorded_sampler_of_k_diffusion_is_used():
    assert {key.split("/")[0] for key in K} - {"mu", "noise", "x_T"} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_k_diffusion_is_met(name):
    table, error = k_run(name, CASES[name])
    assert [s.sigma for s in table.steps] == pytest.approx(K[f"{name}/f64/call_sigma"].tolist(), rel=1e-9)
    assert error < 1e-6


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("euler_churn", Euler(grid=GRID)),
        ("euler_churn", EDM(grid=GRID, solver="euler", s_churn=4.0, s_min=0.05, s_max=50.0, s_noise=1.007)),
        ("dpm_2", DPMSolver(grid=GRID, order=1)),
        ("dpm_2", Heun(grid=GRID)),
        ("dpmpp_2m", DPMpp2MSDE(grid=GRID, eta=0.0, solver="heun")),
        ("dpmpp_2s_ancestral", DPMpp2S(grid=GRID, eta=0.9)),
        ("dpmpp_2s_ancestral", DPMppSDE(grid=GRID)),
    ],
)
def test_k_diffusion_is_missed_with_another_solver(name, wrong):
    assert k_run(name, wrong)[1] > 1e-4


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


def test_latent_diffusions_plms_is_met():
    end, states = ldm_run("plms_guided", sampler=PLMS(grid=Leading(offset=1), final="first"))
    assert relative(states, LDM["plms_guided/call_x"]) < 1e-5
    assert relative(end, LDM["plms_guided/sample"]) < 1e-5
    assert relative(ldm_run("plms_guided", sampler=PLMS(grid=Leading(offset=1)))[0], end) > 1e-4
    assert relative(ldm_run("plms_guided", sampler=LMS(grid=Leading(offset=1), final="first"))[0], end) > 1e-4
