"""RePaint: counted jumps over any sampler, exact ways up, and what they are for: the rest fits the known part."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from tests.refusals import refused
from tests.samplers.oracle import Mixture, bound_oracle, mixture, oracle, record_states, start
from tests.tiny import tiny_pipeline
from zoo.diffusion.noise import AddressedNoise, bound
from zoo.diffusion.parameterization import X0
from zoo.diffusion.schedules import CosineSchedule, FlowSchedule, LinearSchedule
from zoo.diffusion.types import Condition
from zoo.guidance.mask import Mask
from zoo.samplers.ddim import DDIM
from zoo.samplers.ddpm import DDPM
from zoo.samplers.euler import Euler
from zoo.samplers.heun import EDM
from zoo.samplers.repaint import UP, RePaint
from zoo.schema.errors import ConfigError
from zoo.schema.registry import read_registry_file, registry_file

SHAPE = (2, 3, 3)
SCHEDULE = LinearSchedule()
INNER = [e for e in read_registry_file(registry_file()) if e.kind == "sampler" and e.name != "repaint"]


def noise_of(shape=SHAPE, rows=2, seed=7):
    return bound(AddressedNoise(seed), shape=shape, samples=range(rows))


def test_steps_of_the_sampler_within_would_not_count():
    """Which is why a config that gives them is refused."""
    made = RePaint(steps=6, sampler=DDIM(steps=9), jump=3, resamples=1)
    assert made.plan(SCHEDULE) == RePaint(steps=6, sampler=DDIM(), jump=3, resamples=1).plan(SCHEDULE)


def walked(nodes, jump, resamples):
    """Indices from the noisiest down, as the paper's appendix B tells it: jumps left at every jump-th index."""
    left = dict.fromkeys(range(0, nodes - jump, jump), resamples - 1)
    place, path = nodes - 1, [nodes - 1]
    while place > 0 or left.get(0, 0):
        if left.get(place, 0):
            left[place] -= 1
            place += jump
            path.append(place)
        place -= 1
        path.append(place)
    return path


@pytest.mark.parametrize(("nodes", "jump", "resamples"), [(250, 10, 10), (20, 5, 3), (7, 2, 2), (6, 10, 4), (9, 1, 3)])
def test_the_table_walks_as_the_paper_does_and_counts_itself(nodes, jump, resamples):
    table = RePaint(steps=nodes, jump=jump, resamples=resamples).plan(LinearSchedule(steps=500))
    grid = [step.t for step in DDPM(steps=nodes).plan(LinearSchedule(steps=500)).steps][::-1]
    # Every row asks at a node; where a jump leads up, the node arrived at is passed without being asked.
    path = walked(nodes, jump, resamples)
    expected = [a for a, b in itertools.pairwise([*path, -1]) if b < a]
    assert [grid.index(step.t) for step in table.steps] == expected
    assert len(table) == nodes + len(range(0, nodes - jump, jump)) * (resamples - 1) * jump
    assert [step.index for step in table.steps] == list(range(len(table)))


@pytest.mark.slow
@pytest.mark.parametrize("entry", INNER, ids=[e.name for e in INNER])
def test_any_sampler_may_be_walked_up_and_down(entry):
    arguments = {"repeats": 2} if entry.name == "annealed-langevin" else {}
    sampler = RePaint(steps=8, sampler=entry.load()(**arguments), jump=3, resamples=2)
    alone = sampler.sampler.plan(SCHEDULE, 8)
    table = sampler.plan(SCHEDULE)
    asked, reports, states = [], [], []

    def noise(step, draw=0):
        asked.append((step, draw))
        return noise_of()(step, draw)

    denoiser = oracle(mixture(SHAPE), SCHEDULE, X0())
    x = start(table, (2, *SHAPE))
    end = sampler(
        denoiser.bind(Condition(), table), table, x, noise=noise, callback=reports.append,
        after_step=record_states(states),
    )  # fmt: skip
    assert len(denoiser.network.calls) == len(table) == len(states) > len(alone)
    assert [(r.index, r.total) for r in reports] == [(k, len(table)) for k in range(len(table))]
    assert len(asked) == len(set(asked))  # no noise is used twice
    assert sum(draw == UP for _, draw in asked) == 2
    assert float(end.abs().max()) < 20.0
    assert table.start == alone.start


def test_without_resamples_it_is_the_sampler():
    for inner in (DDPM(), Euler(), EDM()):
        once, alone = RePaint(steps=9, sampler=inner, jump=2, resamples=1), dataclasses.replace(inner, steps=9)
        table = once.plan(SCHEDULE)
        assert table.steps == alone.plan(SCHEDULE).steps
        denoise, x = bound_oracle(mixture(SHAPE), SCHEDULE, table, X0()), start(table, (2, *SHAPE))
        plain = alone(denoise, alone.plan(SCHEDULE), x, noise=noise_of())
        assert torch.equal(once(denoise, table, x, noise=noise_of()), plain)


def test_an_interval_is_walked_within_its_ends():
    table = RePaint(steps=20, jump=3, resamples=3).plan(SCHEDULE, interval=(0.6, 0.2))
    assert max(step.t for step in table.steps) == 0.6
    assert min(step.t_next for step in table.steps) == table.steps[-1].t_next == 0.2
    assert len(table) == 8 + 2 * 2 * 3


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule()], ids=["cosine", "flow"])
@pytest.mark.parametrize("renoised", [False, True], ids=["held", "renoised"])
def test_a_known_sample_is_distributed_as_noised_wherever_a_jump_leads(schedule, renoised):
    count, known = 800, torch.ones(1, 1)
    picture = torch.tensor([[0.7, -0.4]], dtype=torch.float64).expand(count, 2)
    sampler = RePaint(steps=9, jump=3, resamples=3)
    table = sampler.plan(schedule)
    mask = Mask(x0=picture, known=known)
    denoise = mask.wrap(
        bound_oracle(mixture((2,)), schedule, table, X0()), denoiser=None, cond=Condition(), null=None, table=table
    )
    noise, reports = noise_of((2,), count), []
    x = table.start.alpha * picture + table.start.sigma * noise_of((2,), count, seed=1)(0).double()
    end = sampler(
        denoise, table, x, noise=noise, callback=reports.append, after_step=mask.renoised(noise) if renoised else None
    )
    assert torch.equal(end, picture)
    for report, step in zip(reports, table.steps, strict=True):
        left = (report.x_t - step.alpha * picture) / step.sigma
        assert abs(float(left.mean())) < 5.0 / math.sqrt(left.numel())
        assert abs(float(left.var()) - 1.0) < 5.0 * math.sqrt(2.0 / left.numel())


@pytest.mark.slow
def test_the_rest_fits_the_known_part_better_than_by_the_mask_alone():
    # Two clusters on the diagonal. Where the first number is a cluster's mean, the second is N(0.6, 0.3^2): the other
    # cluster is e^8 times less likely, and 2.3 % are below 0.
    data = Mixture(
        weights=torch.tensor([0.5, 0.5], dtype=torch.float64),
        means=torch.tensor([[0.6, 0.6], [-0.6, -0.6]], dtype=torch.float64),
        deviations=torch.tensor([0.3, 0.3], dtype=torch.float64),
    )
    count = 1000
    picture = torch.tensor([[0.6, 0.0]], dtype=torch.float64).expand(count, 2)
    mask = Mask(x0=picture, known=torch.tensor([[1.0, 0.0]]))

    def noise(step, draw=0):
        generator = torch.Generator().manual_seed(8 * step + draw)
        return torch.randn(count, 2, dtype=torch.float64, generator=generator)

    def draw(sampler):
        table = sampler.plan(SCHEDULE)
        denoise = mask.wrap(
            bound_oracle(data, SCHEDULE, table, X0()), denoiser=None, cond=Condition(), null=None, table=table
        )
        made = sampler(denoise, table, start(table, (count, 2)), noise=noise, after_step=mask.renoised(noise))
        assert torch.equal(made[:, 0], picture[:, 0])
        return made[:, 1]

    resampling = RePaint(steps=40, jump=2, resamples=10)
    as_long = DDPM(steps=len(resampling.plan(SCHEDULE)))
    alone, resampled = draw(as_long), draw(resampling)
    below = [float((made < 0.0).double().mean()) for made in (alone, resampled)]
    assert below[0] > 0.1, below
    assert below[1] < 0.05, below
    off = [abs(float(made.mean()) - 0.6) for made in (alone, resampled)]
    assert off[0] > 0.1, off
    assert off[1] < 0.05, off
    assert abs(float(resampled.std()) - 0.3) < 0.5 * abs(float(alone.std()) - 0.3)


@pytest.mark.slow
def test_a_pipeline_inpaints_by_it_the_same_in_any_batch():
    pipe = tiny_pipeline()
    repaint = RePaint(steps=6, sampler=DDIM(eta=1.0), jump=2, resamples=2)
    pipe.stages = [dataclasses.replace(pipe.stages[0], sampler=repaint)]
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(32, 32)
    mask[:, 16:] = 1.0
    made = pipe(["cat", "dog"], image=picture, mask=mask)
    assert made.record["stages"][0]["evaluations"] == 10
    assert torch.equal(made.tensor[..., :16], picture[None, ..., :16].expand(2, -1, -1, -1))
    one = pipe(["cat", "dog"], image=picture, mask=mask, batch_size=1)
    torch.testing.assert_close(one.tensor, made.tensor, rtol=0.0, atol=1e-4)
    assert not torch.equal(made.tensor, pipe(["cat", "dog"], image=picture, mask=mask, seed=1).tensor)


def test_wrong_settings_are_refused():
    with refused("number-out-of-range", ConfigError):
        RePaint(jump=0)
    for inner in (RePaint(), np):
        with refused("grid-missing"):
            RePaint(sampler=inner)  # type: ignore[arg-type]
