"""Solvers against diffusers' schedulers of the same method, both driven by the same analytic model, to 1e-4."""

import pytest
import torch

from tests.samplers.oracle import bound_oracle, given_noise, no_noise, record_states, relative
from tests.samplers.test_diffusers import (
    CLOSE,
    DATA,
    LINEAR,
    SCALED,
    SCHEDULES,
    START,
    drive,
    generator_noise,
    zoo_run,
)
from tests.samplers.test_original_sdes import Ratios, Times
from zoo.diffusion.parameterization import EDM, Flow
from zoo.diffusion.schedules import FlowSchedule, LinearSchedule, ScaledLinearSchedule, VESchedule
from zoo.samplers.ddim import DDIM
from zoo.samplers.dpm_solver import DPMSolver
from zoo.samplers.dpmpp import DPMpp2M
from zoo.samplers.dpmpp_2s import DPMpp2S
from zoo.samplers.dpmpp_sde import DPMpp2MSDE
from zoo.samplers.euler import Euler, EulerAncestral
from zoo.samplers.grid import Leading
from zoo.samplers.heun import Heun
from zoo.samplers.multistep import LMS, PLMS

STEPS = 20
# diffusers' schedulers that came from k-diffusion keep x / alpha.
BY_SIGMA = {
    "euler": ("EulerDiscreteScheduler", Euler(), DDIM(eta=0.3)),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", EulerAncestral(), EulerAncestral(eta=0.9)),
    "heun": ("HeunDiscreteScheduler", Heun(), DPMSolver(order=2)),
    "dpm-solver": ("KDPM2DiscreteScheduler", DPMSolver(order=2), Heun()),
    "lms": ("LMSDiscreteScheduler", LMS(), LMS(order=3)),
}


def drive_by_sigma(scheduler, schedule, generator):
    """diffusers' loop on x / alpha, in double precision; the model is asked at the sigma its input is scaled for."""
    scheduler.set_timesteps(STEPS)
    for name in ("sigmas", "sigmas_interpol"):
        if isinstance(getattr(scheduler, name, None), torch.Tensor):
            setattr(scheduler, name, getattr(scheduler, name).double())
    y = START / float(schedule(1.0)[0])
    for t in scheduler.timesteps:
        alpha = float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), t))
        eps = DATA.eps(alpha * y, alpha, (1.0 - alpha**2) ** 0.5)
        draws = {} if generator is None else {"generator": generator}
        y = scheduler.step(eps, t, y, **draws).prev_sample
    return y


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", BY_SIGMA)
def test_solvers_from_k_diffusion_agree(name, schedule):
    import diffusers

    ours, theirs = SCHEDULES[schedule]
    scheduler, sampler, other = BY_SIGMA[name]
    make = getattr(diffusers, scheduler)
    generator = torch.Generator().manual_seed(3) if name == "euler-ancestral" else None
    expected = drive_by_sigma(make(timestep_spacing="trailing", **theirs), ours, generator)
    noise = given_noise(generator_noise(STEPS))
    assert relative(zoo_run(sampler, ours, STEPS, noise=no_noise if generator is None else noise), expected) < CLOSE
    assert relative(zoo_run(other, ours, STEPS, noise=noise), expected) > CLOSE


def pndm(prediction):
    from diffusers import PNDMScheduler

    schedule = ScaledLinearSchedule()
    scheduler = PNDMScheduler(
        skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, prediction_type=prediction, **SCALED
    )
    theirs = drive(scheduler, STEPS, schedule=schedule)
    sampler = PLMS(grid=Leading(offset=1), final="first")
    return zoo_run(sampler, schedule, STEPS, prediction=prediction, noise=no_noise), theirs


@pytest.mark.peer
def test_plms_agrees():
    ours, theirs = pndm("epsilon")
    assert relative(ours, theirs) < CLOSE
    clean = zoo_run(PLMS(grid=Leading(offset=1)), ScaledLinearSchedule(), STEPS, noise=no_noise)
    assert relative(clean, theirs) > CLOSE


@pytest.mark.peer
def test_plms_draws_the_same_from_v_as_from_eps_where_diffusers_does_not():
    # diffusers' PNDM adds up what the network says, whatever that is; Adams and Bashforth's weights are for eps.
    ours, theirs = pndm("v_prediction")
    by_eps, theirs_by_eps = pndm("epsilon")
    assert relative(ours, by_eps) < 1e-9
    assert relative(theirs, theirs_by_eps) > 1e-2


@pytest.mark.peer
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dpmpp_2m_sde_agrees(schedule, solver):
    from diffusers import DPMSolverMultistepScheduler

    ours, theirs = SCHEDULES[schedule]
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", solver_type=solver, timestep_spacing="trailing", **theirs
    )
    expected = drive(scheduler, STEPS, schedule=ours)
    assert relative(zoo_run(DPMpp2MSDE(solver=solver), ours, STEPS), expected) < CLOSE
    other = "heun" if solver == "midpoint" else "midpoint"
    assert relative(zoo_run(DPMpp2MSDE(solver=other), ours, STEPS), expected) > CLOSE


@pytest.mark.peer
def test_rectified_flow_agrees():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    x, schedule = START, FlowSchedule()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        x0 = DATA.x0(x, 1.0 - sigma, sigma)
        x = scheduler.step((x - x0) / sigma, t, x).prev_sample  # eps - x0 = (x - x0) / sigma
    sampler = Euler(grid=Times(tuple(scheduler.sigmas[:-1].tolist())))
    table = sampler.plan(schedule, STEPS)
    end = sampler(bound_oracle(DATA, schedule, table, Flow()), table, START, noise=no_noise)
    assert relative(end, x) < CLOSE


@pytest.mark.peer
@pytest.mark.parametrize(
    ("name", "sampler", "other"),
    [("EDMEulerScheduler", Euler(), DPMpp2M()), ("EDMDPMSolverMultistepScheduler", DPMpp2M(), Euler())],
)
def test_solvers_of_edms_networks_agree(name, sampler, other):
    import diffusers

    scheduler, reading = getattr(diffusers, name)(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5), EDM(sigma_data=0.5)
    scheduler.set_timesteps(STEPS)
    sigmas = scheduler.sigmas.double().tolist()
    x = START * sigmas[0]
    for t, sigma in zip(scheduler.timesteps, sigmas, strict=False):
        c_skip, c_out, _ = reading(1.0, sigma)
        x = scheduler.step((DATA.x0(x, 1.0, sigma) - c_skip * x) / c_out, t, x).prev_sample
    schedule, ends = VESchedule(sigma_min=0.001, sigma_max=200.0), []
    for kind in (sampler, other):
        ours = type(kind)(grid=Ratios(tuple(sigmas[:-1])))
        table = ours.plan(schedule, STEPS)
        denoise = bound_oracle(DATA, schedule, table, reading)
        ends.append(ours(denoise, table, START * table.start.sigma, noise=no_noise))
    assert relative(ends[0], x) < CLOSE
    assert relative(ends[1], x) > CLOSE


# Single-step solvers: diffusers takes a step's evaluations at nodes of its grid. On one that is even in the log-SNR, of
# so many nodes a step, these are zoo's.
SINGLE_STEP = {
    "dpmpp-2s": (DPMpp2S(), 2, {"algorithm_type": "dpmsolver++"}),
    "dpm-solver-2": (DPMSolver(order=2), 2, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpm-solver-3": (DPMSolver(order=3), 3, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
}


@pytest.mark.peer
@pytest.mark.parametrize("name", SINGLE_STEP)
def test_single_step_solvers_agree(name):
    from diffusers import DPMSolverSinglestepScheduler

    sampler, order, said = SINGLE_STEP[name]
    schedule, count = LinearSchedule(), 10
    scheduler = DPMSolverSinglestepScheduler(solver_order=order, use_exponential_sigmas=True, **said, **LINEAR)
    scheduler.set_timesteps(order * count)
    scheduler.set_begin_index(0)
    x, theirs = START, []
    for k, t in enumerate(scheduler.timesteps[: order * (count - 1)]):
        # Algorithm 2 of the paper bends its second evaluation as diffusers' `heun` does, and its third as `midpoint`.
        scheduler.register_to_config(solver_type="heun" if order == 3 and k % 3 == 1 else "midpoint")
        alpha = 1.0 / (1.0 + float(scheduler.sigmas[k]) ** 2) ** 0.5
        x = scheduler.step(DATA.eps(x, alpha, (1.0 - alpha**2) ** 0.5), t, x).prev_sample
        theirs.append(x)
    grid = Ratios(tuple(scheduler.sigmas[: order * count : order].double().tolist()))
    ours, states = type(sampler)(**{**vars(sampler), "grid": grid}), []
    table = ours.plan(schedule, count)
    ours(bound_oracle(DATA, schedule, table), table, START, noise=no_noise, after_step=record_states(states))
    got = torch.stack(states[order - 1 :: order][: count - 1])
    assert relative(got, torch.stack(theirs[order - 1 :: order])) < CLOSE
    assert relative(got[1:], torch.stack(theirs[order - 1 :: order])[:-1]) > CLOSE
