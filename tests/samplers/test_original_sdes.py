"""Recorded runs of EDM's ablations and of score SDE's Euler-Maruyama, and where zoo differs from them on purpose."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from tests.samplers.oracle import no_noise, record_states, relative
from tests.samplers.test_original_solvers import NVIDIA, SONG, WIDE, denoiser
from zoo.diffusion.schedules import CosineSchedule, LinearSchedule, VESchedule, VPSDESchedule
from zoo.diffusion.types import Prediction, Step
from zoo.samplers.dpm_solver import DPMSolver
from zoo.samplers.euler import Euler
from zoo.samplers.grid import Karras, LogSNR
from zoo.samplers.heun import EDM, Heun
from zoo.samplers.langevin import PredictorCorrector, maruyama, rates
from zoo.samplers.linear import ends


@dataclass(frozen=True)
class Ratios:
    """Nodes at given sigma / alpha."""

    sigmas: tuple[float, ...]

    def __call__(self, schedule, steps):
        assert steps == len(self.sigmas)
        return schedule.t_from_log_snr(-2.0 * np.log(self.sigmas))


@dataclass(frozen=True)
class Times:
    """Nodes at given t."""

    times: tuple[float, ...]

    def __call__(self, schedule, steps):
        assert steps == len(self.times)
        return np.array(self.times)


def asked(name):
    """The recorded levels, each once; Heun's second evaluation names its level within rounding."""
    levels = []
    for sigma in NVIDIA[f"{name}/call_sigma"].tolist():
        if not levels or sigma < (1.0 - 1e-9) * levels[-1]:
            levels.append(sigma)
    return tuple(levels)


def nvidia_run(sampler, steps):
    table = sampler.plan(WIDE, steps)
    x = NVIDIA["x_T"] * table.start.sigma
    per_step = 1 if isinstance(sampler, Euler) else 2
    end = sampler(denoiser(NVIDIA["mu"]), table, x, noise=lambda row, draw=0: NVIDIA["noise"][row // per_step])
    return table, end


EXACT_CASES = {
    "edm_limited_net": (EDM(grid=Karras(sigma_min=0.02, sigma_max=20.0), s_churn=0.0), 6),
    "ablation_edm_heun_churn": (EDM(grid=Karras(sigma_min=0.002, sigma_max=80.0), s_churn=20.0), 9),
    "ablation_iddpm_euler": (Euler(grid=Ratios(asked("ablation_iddpm_euler"))), 12),
}


@pytest.mark.parametrize("name", EXACT_CASES)
def test_edm_is_met(name):
    sampler, steps = EXACT_CASES[name]
    table, end = nvidia_run(sampler, steps)
    assert [s.sigma for s in table.steps] == pytest.approx(NVIDIA[f"{name}/call_sigma"].tolist(), rel=1e-9)
    assert relative(end, NVIDIA[f"{name}/sample"]) < 1e-8


@pytest.mark.parametrize(
    "wrong",
    [
        EDM(grid=Karras(sigma_min=0.002, sigma_max=80.0), s_churn=20.0, s_noise=1.0),
        EDM(grid=Karras(sigma_min=0.002, sigma_max=80.0), s_churn=20.0, s_min=0.5),
        EDM(grid=Karras(sigma_min=0.002, sigma_max=80.0), s_churn=20.0, solver="euler"),
    ],
)
def test_edm_is_missed_with_one_switch_flipped(wrong):
    assert relative(nvidia_run(wrong, 9)[1], NVIDIA["ablation_edm_heun_churn/sample"]) > 1e-4


def test_the_ablations_levels_are_those_of_zoos_schedules():
    iddpm = np.array(asked("ablation_iddpm_euler"))
    ratios = np.exp(CosineSchedule()._log_ratios)
    # The original works its table out in float32, which shows where it is cleanest.
    errors = np.abs(ratios[:, None] / iddpm - 1.0).min(axis=0)
    assert errors[:-1].max() < 1e-5
    assert errors[-1] < 1e-3
    alpha, sigma = VPSDESchedule()(np.linspace(1.0, 1e-3, 12))
    assert np.allclose(sigma / alpha, asked("ablation_vp_euler"), rtol=1e-9)
    alpha, sigma = VESchedule(sigma_max=100.0)(LogSNR(sigma_min=0.02)(VESchedule(sigma_max=100.0), 12))
    assert np.allclose(sigma, asked("ablation_ve_euler"), rtol=1e-9)


# Where zoo differs: EDM's ablations step in the t of each schedule, as the original samplers of those models did. zoo
# steps in sigma / alpha whatever the schedule (docs/samplers.md).


def own_run(kind, solver):
    levels = asked(f"ablation_{kind}_{solver}")
    table, end = nvidia_run({"euler": Euler, "heun": Heun}[solver](grid=Ratios(levels)), len(levels))
    return table, end, NVIDIA[f"ablation_{kind}_{solver}/sample"]


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_ablations_in_the_schedules_t_ask_at_the_same_levels_and_step_otherwise(kind, solver):
    table, ours, theirs = own_run(kind, solver)
    recorded = NVIDIA[f"ablation_{kind}_{solver}/call_sigma"].tolist()
    assert [s.sigma for s in table.steps] == pytest.approx(recorded, rel=1e-9)
    assert relative(ours, theirs) > 1e-2
    fine = DPMSolver(order=3, grid=LogSNR(sigma_min=1e-3, sigma_max=recorded[0]))
    exact = fine(denoiser(NVIDIA["mu"]), fine.plan(WIDE, 150), NVIDIA["x_T"] * recorded[0], noise=no_noise)
    # Neither time is the better one for any schedule: sigma^2 is far worse, the VP-SDE's t is good on this data.
    assert (relative(ours, exact) < relative(theirs, exact)) == (kind == "ve")


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_the_time_that_is_stepped_in_is_the_whole_difference(kind):
    levels = np.array([*asked(f"ablation_{kind}_euler"), 0.0])
    denoise = denoiser(NVIDIA["mu"])
    times = levels**2 if kind == "ve" else [*np.linspace(1.0, 1e-3, 12), 0.0]
    x, scale = NVIDIA["x_T"] * levels[0], 1.0 if kind == "ve" else (1.0 + levels[0] ** 2) ** -0.5
    x = x * scale
    for t, t_next, sigma in zip(times, times[1:], levels, strict=False):
        scale = 1.0 if kind == "ve" else (1.0 + sigma**2) ** -0.5
        grow = 0.5 / sigma**2 * (1.0 if kind == "ve" else 0.1 + 19.9 * t)
        x0 = denoise(x / scale, Step(0, t, 1.0, float(sigma), t_next, 1.0, 0.0)).x0
        x = x + (t_next - t) * grow * (x - x0 / scale)  # Karras et al. 2022, eq. 4, Euler's step
    assert relative(x, NVIDIA[f"ablation_{kind}_euler/sample"]) < 1e-8


# Score SDE: Euler and Maruyama's steps of the reverse VP-SDE.

VP = VPSDESchedule(beta_min=0.1, beta_max=20.0)
POINTS = tuple(float(t) for t in SONG["vp_euler_maruyama/timesteps"])


def song_run(length=None):
    sampler = PredictorCorrector(corrections=0, predictor="euler-maruyama", grid=Times(POINTS))
    table = sampler.plan(VP, 10)
    if length is not None:
        mended = []
        for step in table.steps:
            drift, spread = rates(VP, step.t)
            weights = maruyama(*ends(step), drift=drift, spread=spread, length=length)
            mended.append(replace(step, coefficients=(*weights, *step.coefficients[3:])))
        table = replace(table, steps=tuple(mended))
    mu, states = SONG["mu"].double(), []

    def denoise(x, step):
        v = 0.16 * step.alpha**2 + step.sigma**2
        mean = step.alpha * mu * torch.tanh(step.alpha * (x * mu).sum((1, 2, 3), keepdim=True) / v)
        return Prediction(x0=(x - step.sigma**2 / v * (x - mean)) / step.alpha)

    noise = SONG["vp_euler_maruyama/noise"].double()
    end = sampler(denoise, table, noise[0], noise=lambda row, draw=0: noise[row + 1], after_step=record_states(states))
    return end, torch.stack(states)


def test_song_is_met_by_steps_of_the_originals_length():
    # The original's points lie 0.999 / 9 apart and its steps are 1 / 10 long.
    end, states = song_run(length=0.1)
    assert relative(states[:-1], SONG["vp_euler_maruyama/x"][:-1]) < 1e-5
    assert relative(end, SONG["vp_euler_maruyama/sample"]) < 1e-5


def test_steps_from_node_to_node_are_not_the_originals():
    assert relative(song_run()[0], SONG["vp_euler_maruyama/sample"]) > 1e-3


@pytest.mark.parametrize("t", [1.0, 0.4, 1e-3])
def test_rates_are_those_of_the_sde(t):
    beta = 0.1 + t * 19.9
    drift, spread = rates(VP, t)
    assert drift == pytest.approx(-0.5 * beta, rel=1e-6)
    assert spread == pytest.approx(beta, rel=1e-6)
    drift, spread = rates(VESchedule(), t)
    assert drift == 0.0
    sigma = float(VESchedule()(t)[1])
    assert spread == pytest.approx(2.0 * np.log(5000.0) * sigma**2, rel=1e-5)
    point = round(t * 1000) / 1000
    drift, spread = rates(LinearSchedule(), point)
    beta = LinearSchedule().betas[round(t * 1000) - 1] * 1000.0  # a forward step's variance is beta / T
    assert spread == pytest.approx(beta, rel=0.02)
    assert drift == pytest.approx(-0.5 * beta, rel=0.02)
