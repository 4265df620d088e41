"""Continuous schedules and exploding ones: what the papers write, and their inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import refused
from zoo.diffusion.schedules import (
    EDMSchedule,
    FlowSchedule,
    LinearSchedule,
    ShiftedCosineSchedule,
    SubVPSchedule,
    VESchedule,
    VPSDESchedule,
)
from zoo.diffusion.types import NoiseSchedule
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid import Karras

SCHEDULES = {
    "flow": FlowSchedule(),
    "ve": VESchedule(),
    "ve-10": VESchedule(sigma_min=0.01, sigma_max=1.0, steps=10),
    "vp-sde": VPSDESchedule(),
    "sub-vp": SubVPSchedule(),
    "shifted-cosine": ShiftedCosineSchedule(size=256),
    "edm": EDMSchedule(),
    "edm-18": EDMSchedule(steps=18),
}
each = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@each
def test_noise_grows_from_a_clean_sample_at_0(schedule):
    assert isinstance(schedule, NoiseSchedule)
    alpha, sigma = schedule(np.linspace(0.0, 1.0, 50))
    assert alpha.shape == sigma.shape == (50,)
    assert (alpha[0], sigma[0]) == (1.0, 0.0)
    assert (np.diff(sigma / np.maximum(alpha, 1e-9)) >= 0.0).all()


@given(name=st.sampled_from(sorted(SCHEDULES)), t=st.floats(0.11, 0.999))
def test_t_comes_back_from_log_snr(name, t):
    alpha, sigma = SCHEDULES[name](t)
    assert float(SCHEDULES[name].t_from_log_snr(2.0 * np.log(alpha / sigma))) == pytest.approx(t, rel=1e-6)


@each
def test_a_t_outside_is_refused_and_no_noise_is_t_0(schedule):
    for t in (-0.1, 1.1, float("nan")):
        with refused("time-out-of-range"):
            schedule(t)
    assert schedule.t_from_log_snr(np.inf) == pytest.approx(0.0, abs=1e-300)


def test_flow_is_the_straight_path():
    alpha, sigma = FlowSchedule()(np.array([0.25, 1.0]))
    assert (alpha.tolist(), sigma.tolist()) == ([0.75, 0.0], [0.25, 1.0])


def test_ncsns_levels_are_in_geometric_progression():
    # Song & Ermon 2019, section 5: ten levels from 1 to 0.01.
    _, sigma = SCHEDULES["ve-10"]((np.arange(10) + 1) / 10)
    assert np.allclose(sigma[::-1], np.geomspace(1.0, 0.01, 10), rtol=1e-12)


def test_even_steps_of_edm_are_its_paper_s():
    # Karras et al. 2022, eq. 5.
    n, i = 18, np.arange(18)
    theirs = (80.0 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80.0 ** (1 / 7))) ** 7
    _, sigma = EDMSchedule()(1.0 - i[:-1] / (n - 1))
    assert np.allclose(sigma, theirs[:-1], rtol=1e-12)
    _, points = EDMSchedule(steps=n)((np.arange(n) + 1) / n)
    assert np.allclose(points[::-1], theirs, rtol=1e-9)
    table = DDIM(steps=n, grid=Karras(sigma_min=0.002)).plan(EDMSchedule())
    assert np.allclose([row.sigma for row in table.steps], theirs, rtol=1e-6)


@pytest.mark.parametrize("wrong", [{"sigma_min": 0.0}, {"sigma_min": 90.0}, {"steps": 1}])
def test_impossible_ranges_are_refused(wrong):
    for kind in (VESchedule, EDMSchedule):
        with refused("schedule-invalid"):
            kind(**wrong)


def test_vp_sde_is_the_limit_of_ddpms_betas():
    t = np.linspace(0.1, 1.0, 10)
    fine = LinearSchedule(steps=100_000, beta_start=0.1 / 100_000, beta_end=20.0 / 100_000)
    assert np.allclose(VPSDESchedule()(t)[0], fine(t)[0], rtol=2e-3)


def test_score_sdes_marginals_are_the_papers():
    # Song et al. 2021b, appendix C: exp(-t^2 (20 - 0.1) / 4 - 0.1 t / 2).
    t = np.array([0.05, 0.5, 1.0])
    mean = np.exp(-0.25 * t**2 * 19.9 - 0.05 * t)
    alpha, sigma = VPSDESchedule()(t)
    assert np.allclose(alpha, mean, rtol=1e-12)
    assert np.allclose(sigma, np.sqrt(1.0 - mean**2), rtol=1e-12)
    alpha, sigma = SubVPSchedule()(t)
    assert np.allclose(alpha, mean, rtol=1e-12)
    assert np.allclose(sigma, 1.0 - mean**2, rtol=1e-12)


def test_a_shifted_cosine_is_the_cosine_with_its_log_snr_moved():
    # Hoogeboom et al. 2023: the log-SNR of cos(pi t / 2), plus 2 ln(64 / 256).
    t = np.array([0.1, 0.5, 0.9])
    wide = ShiftedCosineSchedule(size=256, low=-60.0, high=60.0)
    alpha, sigma = wide(t)
    theirs = -2.0 * np.log(np.tan(np.pi * t / 2.0)) + 2.0 * np.log(64.0 / 256.0)
    assert np.allclose(2.0 * np.log(alpha / sigma), theirs, rtol=1e-9)
    alpha, sigma = ShiftedCosineSchedule(size=256)(1.0)
    assert 2.0 * np.log(alpha / sigma) == pytest.approx(-15.0 - 2.0 * np.log(4.0))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(VPSDESchedule, {"beta_min": 0.0}), (SubVPSchedule, {"beta_max": 0.01}), (ShiftedCosineSchedule, {"size": 0})],
)
def test_impossible_settings_are_refused(kind, wrong):
    with refused("number-out-of-range" if "size" in wrong else "schedule-invalid"):
        kind(**wrong)
