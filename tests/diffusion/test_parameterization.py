"""Parameterizations: what a network is trained to give reads back as x0."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests import golden_sets
from tests.refusals import refused
from zoo.diffusion.parameterization import EDM, X0, Eps, Flow, Score, V
from zoo.schema.errors import ConfigError

EACH = {"eps": Eps(), "x0": X0(), "v": V(), "flow": Flow(), "edm": EDM(sigma_data=0.5)}
numbers = st.floats(-3.0, 3.0)


@given(
    name=st.sampled_from(sorted(EACH)), x0=numbers, eps=numbers, alpha=st.floats(0.01, 1.0), sigma=st.floats(0.0, 80.0)
)
def test_target_reads_back_as_x0_for_any_alpha_and_sigma(name, x0, eps, alpha, sigma):
    parameterization = EACH[name]
    c_skip, c_out, c_in = parameterization(alpha, sigma)
    x_t = alpha * x0 + sigma * eps
    assert name == "edm" or c_in == 1.0
    back = c_skip * x_t + c_out * parameterization.target(x0, eps, alpha, sigma)
    assert back == pytest.approx(x0, abs=1e-9 * (1.0 + sigma / alpha) ** 2)


@pytest.mark.parametrize("name", EACH)
def test_targets_are_told_apart(name):
    alpha, sigma, x0, eps = 0.6, 0.8, 0.9, -1.2
    for other in set(EACH) - {name}:
        c_skip, c_out, _ = EACH[other](alpha, sigma)
        back = c_skip * (alpha * x0 + sigma * eps) + c_out * EACH[name].target(x0, eps, alpha, sigma)
        assert abs(back - x0) > 0.1


@pytest.mark.parametrize("parameterization", EACH.values(), ids=EACH)
def test_floats_arrays_and_tensors_agree(parameterization):
    alpha, sigma = np.array([0.9, 0.3]), np.array([0.4, 0.95])
    arrays = parameterization(alpha, sigma)
    tensors = parameterization(torch.from_numpy(alpha), torch.from_numpy(sigma))
    for k in range(2):
        floats = parameterization(float(alpha[k]), float(sigma[k]))
        for one, array, tensor in zip(floats, arrays, tensors, strict=True):
            assert one == pytest.approx(float(np.broadcast_to(array, 2)[k]))
            assert one == pytest.approx(float(torch.as_tensor(tensor).expand(2)[k]))


@pytest.mark.parametrize("alpha", [0, 0.0, np.array([0.5, 0.0]), torch.tensor([0.0, 1.0]), np.float64(0.0)])
def test_eps_is_refused_where_there_is_no_signal(alpha):
    with refused("alpha-zero-undefined", naming="'eps'"):
        Eps()(alpha, 1.0)


def test_v_and_x0_are_fine_where_there_is_no_signal():
    # x0 = -v there: v = 0 * eps - 1 * x0.
    assert V()(0.0, 1.0)[:2] == (0.0, -1.0)
    assert X0()(0.0, 1.0)[:2] == (0.0, 1.0)


def test_flow_and_edm_are_fine_where_there_is_no_signal():
    assert Flow()(0.0, 1.0)[:2] == (1.0, -1.0)
    assert EDM(sigma_data=0.5)(0.0, 1.0) == (0.0, 0.5, 1.0)


def test_edm_reads_the_original_networks_output_as_the_original_code_did():
    io = load_file(golden_sets.folder("edm/edm_ddpmpp_cond") / "io.safetensors")
    c_skip, c_out, c_in = EDM(sigma_data=0.5)(torch.ones(2, 1, 1, 1), io["sigma"].view(-1, 1, 1, 1))
    assert torch.allclose(c_in * io["x"], io["net_in"], rtol=1e-5, atol=1e-6)
    assert torch.allclose(c_skip * io["x"] + c_out * io["F_x"], io["D_x"], rtol=1e-5, atol=1e-5)
    other = EDM(sigma_data=0.6)(torch.ones(2, 1, 1, 1), io["sigma"].view(-1, 1, 1, 1))
    assert not torch.allclose(other.c_skip * io["x"] + other.c_out * io["F_x"], io["D_x"], atol=1e-3)


@given(alpha=st.floats(0.05, 1.0), sigma=st.floats(0.01, 20.0))
def test_edm_has_unit_variance_in_and_out(alpha, sigma):
    # Exactly, for independent x0 of variance d^2 and eps of variance 1: variances add up.
    d = 0.5
    c_in = EDM(sigma_data=d)(alpha, sigma).c_in
    assert c_in**2 * (alpha**2 * d**2 + sigma**2) == pytest.approx(1.0)
    of_x0, of_eps = EDM(sigma_data=d).target(1.0, 0.0, alpha, sigma), EDM(sigma_data=d).target(0.0, 1.0, alpha, sigma)
    assert of_x0**2 * d**2 + of_eps**2 == pytest.approx(1.0)


def test_edm_without_deviation_is_refused():
    with refused("number-out-of-range", ConfigError, naming="sigma_data"):
        EDM(sigma_data=0.0)


@given(x0=numbers, eps=numbers, alpha=st.floats(0.01, 1.0), sigma=st.floats(0.01, 80.0))
def test_a_score_reads_back_as_x0_by_tweedies_formula(x0, eps, alpha, sigma):
    c_skip, c_out, c_in = Score()(alpha, sigma)
    back = c_skip * (alpha * x0 + sigma * eps) + c_out * Score().target(x0, eps, alpha, sigma)
    assert c_in == 1.0
    assert back == pytest.approx(x0, abs=1e-9 * (1.0 + sigma / alpha) ** 2)


def test_the_score_of_a_gaussian_gives_its_posterior_mean():
    # x0 ~ N(m, d^2): x_t ~ N(alpha m, q), and E[x0 | x_t] is the regression on x_t.
    alpha, sigma, m, d, x_t = 0.6, 0.5, 0.3, 0.7, -1.1
    q = alpha**2 * d**2 + sigma**2
    c_skip, c_out, _ = Score()(alpha, sigma)
    mean = m + alpha * d**2 / q * (x_t - alpha * m)
    assert c_skip * x_t - c_out * (x_t - alpha * m) / q == pytest.approx(mean)


def test_a_score_says_nothing_where_alpha_is_0():
    with refused("alpha-zero-undefined", naming="'score'"):
        Score()(0.0, 1.0)
