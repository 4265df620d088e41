"""Continuous schedules and exploding ones: what the papers write, and their inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import ConfigError, UsageError
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid import Karras
from zoo.schedules import EDMSchedule, FlowSchedule, VESchedule
from zoo.types import NoiseSchedule

SCHEDULES = {
    "flow": FlowSchedule(),
    "ve": VESchedule(),
    "ve-10": VESchedule(sigma_min=0.01, sigma_max=1.0, steps=10),
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
        with pytest.raises(UsageError, match=r"\[0, 1\]"):
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
        with pytest.raises(ConfigError, match=r"sigma_min|points"):
            kind(**wrong)
