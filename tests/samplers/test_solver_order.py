"""The order each solver converges at, UniPC and the grids against diffusers, and OpenAI's sections."""

import math

import numpy as np
import pytest

from tests.refusals import refused
from tests.samplers.oracle import AngleSchedule, no_noise, relative
from tests.samplers.test_diffusers import LINEAR, drive, zoo_run
from tests.samplers.test_oracle import end_state
from tests.samplers.test_original_code import OPENAI
from zoo.diffusion.schedules import CosineSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.samplers.ddim import DDIM
from zoo.samplers.dpm_solver import DPMSolver
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.dpmpp_2s import DPMpp2S
from zoo.samplers.dpmpp_sde import DPMpp2MSDE, DPMppSDE
from zoo.samplers.euler import Euler, EulerAncestral
from zoo.samplers.grid import LogSNR
from zoo.samplers.grid_tables import Sections, Table
from zoo.samplers.heun import EDM, Heun
from zoo.samplers.multistep import LMS, PLMS
from zoo.samplers.unipc import UniPC
from zoo.schema.registry import read_registry_file, registry_file

ORDERS = {
    "euler": (Euler(), 1, 160),
    "heun": (Heun(), 2, 80),
    "dpm-solver-1": (DPMSolver(order=1), 1, 160),
    "dpm-solver-2": (DPMSolver(order=2), 2, 80),
    "dpm-solver-3": (DPMSolver(order=3), 3, 40),
    "ddim": (DDIM(), 1, 160),
    "euler-ancestral": (EulerAncestral(eta=0.0), 1, 160),
    "edm": (EDM(s_churn=0.0), 2, 80),
    "edm-euler": (EDM(s_churn=0.0, solver="euler"), 1, 160),
    "dpmpp-2m": (DPMpp2M(), 2, 160),
    "dpmpp-2s": (DPMpp2S(), 2, 80),
    "dpmpp-2m-sde": (DPMpp2MSDE(eta=0.0), 2, 160),
    "dpmpp-sde": (DPMppSDE(eta=0.0), 2, 80),
    "plms": (PLMS(), 2, 160),
    # Corrected steps are of a higher order; the last one, of first order and never corrected, bounds the whole.
    "unipc": (UniPC(order=2), 2, 80),
}


# LMS has a test of its own; these have no deterministic form.
ELSEWHERE = {"lms", "ddpm", "repaint", "predictor-corrector", "annealed-langevin", "lcm"}


def test_every_registered_solver_of_the_ode_has_its_order_seen():
    entries = {e.name: e.load() for e in read_registry_file(registry_file()) if e.kind == "sampler"}
    seen = {type(sampler) for sampler, _, _ in ORDERS.values()}
    assert {name for name, made in entries.items() if made not in seen} == ELSEWHERE


@pytest.fixture(scope="module")
def exact():
    return end_state(DPMSolver(order=3), 1500, AngleSchedule())


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDERS)
def test_solvers_have_their_order(name, exact):
    sampler, order, count = ORDERS[name]
    errors = [relative(end_state(sampler, n, AngleSchedule()), exact) for n in (count, 2 * count)]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.3, errors


@pytest.mark.slow
def test_lms_is_of_higher_order_than_two(exact):
    errors = [relative(end_state(LMS(), n, AngleSchedule()), exact) for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) > 1.8


@pytest.mark.peer
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_agrees_with_diffusers(order):
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(solver_order=order, timestep_spacing="trailing", **LINEAR)
    schedule = LinearSchedule()
    expected = drive(scheduler, 10, schedule=schedule)
    assert relative(zoo_run(UniPC(order=order), schedule, 10, noise=no_noise), expected) < 1e-4
    assert relative(zoo_run(DPMpp2M(), schedule, 10, noise=no_noise), expected) > 1e-3


def test_sections_are_openai_spacings():
    schedule = CosineSchedule()
    maps = {"p_learned_range_10_8_6": Sections(sections="10,8,6"), "ddim25_eta0": Sections(sections="ddim25")}
    for name, grid in maps.items():
        expected = OPENAI[f"{name}/timestep_map"].numpy()
        points = LinearSchedule() if name.startswith("ddim") else schedule
        assert np.array_equal(np.round(grid(points, len(expected)) * points.T - 1)[::-1], expected)
    with refused("steps-unfit", naming="24"):
        Sections(sections="10,8,6")(schedule, 20)


def test_log_snr_and_tables_lie_where_they_say():
    schedule = ScaledLinearSchedule()
    alpha, sigma = schedule(LogSNR()(schedule, 7))
    assert np.allclose(np.diff(np.log(sigma / alpha), 2), 0.0, atol=1e-9)
    alpha, sigma = schedule(Table()(schedule, 10)[1:])
    assert np.allclose(sigma / alpha, (6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152))
