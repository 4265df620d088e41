"""What users of other diffusion libraries complain of, written down as what must not happen here.

docs/complaints.md lists the complaints with the threads they come from and every test that answers one; those that
other files hold aren't repeated here.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import zoo
from tests.refusals import refused
from tests.samplers.oracle import bound_oracle, mixture, no_noise, relative, start
from tests.tiny import tiny_pipeline
from zoo.diffusion.noise import AddressedNoise, bound
from zoo.diffusion.parameterization import Eps, V
from zoo.diffusion.schedules import LinearSchedule, ScaledLinearSchedule, VESchedule, ZeroTerminalSNR
from zoo.networks.unet import UNet
from zoo.pipeline.generation import read_record
from zoo.samplers.dpm_solver import DPMSolver
from zoo.samplers.grid import Leading, Linspace, LogSNR, Trailing
from zoo.schema.registry import read_registry_file, registry_file

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "complaints.md"
SHAPE = (2, 2, 2)
DATA = mixture(SHAPE)
SAMPLERS = {e.name: e for e in read_registry_file(registry_file()) if e.kind == "sampler"}
each_sampler = pytest.mark.parametrize("name", SAMPLERS)
# RePaint has the grid and the end of the sampler it holds.
each_with_a_grid = pytest.mark.parametrize("name", [n for n in SAMPLERS if n != "repaint"])


def sampler_of(name, **said):
    return SAMPLERS[name].load()(**({"repeats": 2} if name == "annealed-langevin" else {}), **said)


# 1. "I swapped the sampler and the images are wrong."


@pytest.fixture(scope="module")
def exact():
    schedule, sampler = ScaledLinearSchedule(), DPMSolver(order=3, grid=LogSNR())
    table = sampler.plan(schedule, 300)
    return sampler(bound_oracle(DATA, schedule, table), table, start(table, (4, *SHAPE)), noise=no_noise)


@pytest.mark.slow
@each_sampler
def test_every_deterministic_sampler_draws_the_sample_that_all_the_others_draw(name, exact):
    schedule, sampler = ScaledLinearSchedule(), sampler_of(name)
    table = sampler.plan(schedule, 150)
    try:
        end = sampler(bound_oracle(DATA, schedule, table), table, start(table, (4, *SHAPE)), noise=no_noise)
    except AssertionError:
        return  # it draws noise of its own; tests/samplers/test_distribution.py looks at those
    assert relative(end, exact) < 0.03


@each_with_a_grid
def test_where_a_run_ends_is_said_in_one_way_by_every_sampler(name):
    # diffusers#6068: DDIM took `set_alpha_to_one: false` from a config that was written for another scheduler.
    schedule = ScaledLinearSchedule()
    clean, first = (sampler_of(name, final=final).plan(schedule, 10).steps[-1] for final in ("clean", "first"))
    assert (clean.t_next, clean.alpha_next, clean.sigma_next) == (0.0, 1.0, 0.0)
    assert first.alpha_next == pytest.approx(schedule.alphas_bar[0] ** 0.5)
    assert sampler_of(name).final == "clean"


@each_sampler
def test_a_run_starts_with_as_much_noise_as_its_schedule_ends_with(name):
    for schedule in (LinearSchedule(), VESchedule(sigma_max=380.0)):
        began = sampler_of(name).plan(schedule, 6).start
        assert (began.alpha, began.sigma) == tuple(float(v) for v in schedule(1.0))


@pytest.mark.slow
@each_with_a_grid
def test_a_swap_keeps_the_steps_and_no_setting_of_the_sampler_before(name):
    # The shipped preset's `eta: 0.0` is of its DDIM; an ancestral sampler would be silenced by it.
    before = {"name": "ddim" if name != "ddim" else "ddpm", "steps": 12, "grid": "karras"}
    before |= {"eta": 0.0} if name != "ddim" else {"variance": "fixed_large"}
    config = zoo.check("latent-text2img", overrides={"stages.0.sampler": before})
    swapped = zoo.check(config, sampler=name)["stages"][0]["sampler"]
    assert (swapped["name"], swapped["steps"], swapped["grid"]["name"]) == (name, 12, "karras")
    own = sampler_of(name)
    assert {
        k: v for k, v in swapped.items() if k not in ("name", "steps", "grid", "final") and v != getattr(own, k)
    } == {}
    assert zoo.check("latent-text2img", sampler="euler-ancestral")["stages"][0]["sampler"].get("eta", 1.0) == 1.0


@pytest.mark.parametrize("grid", [Leading(), Leading(offset=0), Leading(offset=7), Trailing(), Linspace()])
def test_any_number_of_steps_stays_within_the_table(grid):
    # latent-diffusion#136, diffusers#10003: 27 or 1000 steps asked for the point after the last.
    schedule = ScaledLinearSchedule()
    for steps in range(1, 1001):
        indices = schedule.index_from_t(grid(schedule, steps))
        assert len(indices) == steps
        assert 999 >= indices[0] >= indices[-1] >= 0, steps
        assert np.all(np.diff(indices) < 0), steps


@each_sampler
def test_eps_where_nothing_is_left_of_the_sample_is_refused_and_v_is_not(name):
    schedule = ZeroTerminalSNR(schedule=LinearSchedule())
    table = sampler_of(name).plan(schedule, 4)
    x, noise = start(table, (2, *SHAPE)), bound(AddressedNoise(1), shape=SHAPE, samples=range(2))
    with refused("alpha-zero-undefined"):
        sampler_of(name)(bound_oracle(DATA, schedule, table, Eps()), table, x, noise=noise)
    end = sampler_of(name)(bound_oracle(DATA, schedule, table, V()), table, x, noise=noise)
    assert bool(torch.isfinite(end).all())


# 2. "Loaders guess, silently."


@pytest.mark.parametrize("fact", ["parameterization", "schedule"])
def test_a_card_that_does_not_say_what_the_network_predicts_is_refused(fact, tmp_path):
    # diffusers#9171, InvokeAI#7965: v-prediction lost on loading. Nothing in the tensors says it.
    card = yaml.safe_load((ROOT / "zoo" / "weights" / "emoji-latent-64.yaml").read_text(encoding="utf-8"))
    del card["denoiser"][fact]
    (tmp_path / "silent.yaml").write_text(yaml.safe_dump(card))
    with refused("argument-missing", naming=fact):
        zoo.check("latent-text2img", overrides={"stages.0.denoiser.weights": str(tmp_path / "silent.yaml")})


def test_the_number_of_heads_is_never_assumed():
    # diffusers#2011: `attention_head_dim` means the number of heads.
    with refused("arguments-conflict", naming="head_width"):
        UNet()


# 3. "Same seed, another image."


def test_the_third_picture_of_four_can_be_drawn_again_alone_from_its_record(tmp_path):
    # diffusers#6233, #3158, ComfyUI#165: only the first picture of a batch could be found again.
    pipe = tiny_pipeline(eta=1.0)
    made = pipe("a red apple", n=4, seed=11)
    record = read_record(made.save(tmp_path / "x.png")[2])
    (own,) = record["images"]
    shape = tuple(made.samples.shape[1:])

    class From:
        """The run's noise, from its third sample on."""

        def __call__(self, shape, *, samples, **address):
            return AddressedNoise(record["seed"])(shape, samples=[own["sample"] + s for s in samples], **address)

    assert own["sample"] == 2
    alone = pipe(own["prompt"], noise=From())
    assert alone.samples.shape[1:] == shape
    torch.testing.assert_close(alone.samples[0], made.samples[2], atol=2e-5, rtol=0)
    assert (alone.samples[0] - made.samples[0]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["ddim", "euler-ancestral", "dpmpp-sde", "edm", "predictor-corrector"])
def test_noise_of_stochastic_samplers_is_a_samples_own_in_any_batch(name):
    # AUTOMATIC1111#376, k-diffusion#25: ancestral samplers gave another picture in another batch.
    schedule, sampler = LinearSchedule(), sampler_of(name, **({"eta": 1.0} if name == "ddim" else {}))
    table = sampler.plan(schedule, 5)
    x = start(table, (8, *SHAPE))

    def run(rows):
        noise = bound(AddressedNoise(5), shape=SHAPE, samples=rows)
        return sampler(bound_oracle(DATA, schedule, table), table, x[list(rows)], noise=noise)

    whole = run(range(8))
    for rows in ([0], [7], [2, 5, 6]):
        assert torch.allclose(run(rows), whole[rows], rtol=1e-9, atol=1e-9)
    bits = bound(AddressedNoise(5), shape=SHAPE, samples=range(8))(3)
    assert torch.equal(bits[[2, 5]], bound(AddressedNoise(5), shape=SHAPE, samples=[2, 5])(3))


# The page and the tests it names.


def test_every_complaint_names_tests_that_there_are():
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 40
    lost = [(file, name) for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")]
    assert lost == []


def test_every_test_here_is_on_the_page():
    here = re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE)
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in here if name not in page and "page" not in name and "names_tests" not in name] == []
