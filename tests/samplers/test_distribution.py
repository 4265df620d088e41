"""Every registered sampler in the limit of many steps: its samples and draws of the data can't be told apart.

Data in 48 dimensions, two clusters of different width. Three numbers of each sample (its place on the line between the
clusters, its squared distance to the nearer one in units of that cluster's width, a coordinate) are held against those
of true draws by the two-sample test of Kolmogorov and Smirnov. In so many dimensions the distance tells the width to a
few per cent: the same test must fail where a sampler's noise is 15 % too large.
"""

from math import sqrt

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from tests.samplers.oracle import Mixture
from tests.samplers.test_contract import ENTRIES
from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import Prediction
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid import LogSNR
from zoo.samplers.linear import kept_noise

DIMENSIONS, COUNT = 48, 150
RNG = np.random.default_rng(3)
DATA = Mixture(
    weights=torch.tensor([0.3, 0.7], dtype=torch.float64),
    means=torch.from_numpy(RNG.uniform(-0.6, 0.6, (2, DIMENSIONS))),
    deviations=torch.tensor([0.3, 0.45], dtype=torch.float64),
)
# (arguments, steps): where a sampler has a switch for how noisy it is, the noisiest too; steps enough for its order.
# Names that aren't here run as they are built, in 60 steps; one that is right for the ends of paths alone
# (`ends_paths`) has its draws in test_consistency.py.
RUNS = {
    "ddpm": [({}, 300), ({"variance": "fixed_large"}, 300)],
    "ddim": [({}, 200), ({"eta": 1.0}, 300)],
    "euler": [({}, 200)],
    "euler-ancestral": [({}, 300)],
    "edm": [({}, 80), ({"solver": "euler"}, 400)],
    "dpmpp-2m-sde": [({}, 80), ({"solver": "heun"}, 160)],
    "dpmpp-sde": [({}, 200)],
    "repaint": [({"jump": 5, "resamples": 2}, 500)],
    "dpmpp-2s": [({}, 60), ({"eta": 1.0}, 100)],
    "predictor-corrector": [
        ({}, 250),
        ({"predictor": "reverse-diffusion", "snr": 0.1}, 400),
        ({"predictor": "euler-maruyama", "corrections": 0}, 250),
    ],
    # Its clusters are as wide as they were when the noise fell below their width: it needs long walks at each level.
    "annealed-langevin": [({"repeats": 50, "rate": 0.4, "grid": LogSNR()}, 24)],
}
CASES = [
    pytest.param(name, said, steps, id=f"{name}-{n}")
    for name in ENTRIES
    if not getattr(ENTRIES[name].load(), "ends_paths", False)
    for n, (said, steps) in enumerate(RUNS.get(name, [({}, 60)]))
]


class Counted:
    """Noise a fixed factor too large, and how often it was asked."""

    def __init__(self, factor=1.0, seed=11):
        self.factor, self.rng, self.asked = factor, np.random.default_rng(seed), 0

    def __call__(self, step, draw=0):
        self.asked += 1
        return torch.from_numpy(self.factor * self.rng.standard_normal((COUNT, DIMENSIONS)))


def features(samples):
    """(N, 3): place on the line between the means, squared distance to the nearer one in its widths, a coordinate."""
    offsets = samples[:, None] - DATA.means
    distances = (offsets**2).sum(-1)
    near = distances.argmin(dim=1)
    line = (DATA.means[1] - DATA.means[0]) / (DATA.means[1] - DATA.means[0]).norm()
    width = distances[torch.arange(len(samples)), near] / DATA.deviations[near] ** 2
    return torch.stack([samples @ line, width, samples[:, 0]], dim=1).numpy()


def true_draws(count, seed):
    rng = np.random.default_rng(seed)
    which = rng.choice(2, size=count, p=DATA.weights.numpy())
    return DATA.means[which] + DATA.deviations[which, None] * torch.from_numpy(rng.standard_normal((count, DIMENSIONS)))


TRUTH = features(true_draws(20_000, seed=1))


def p_value(samples):
    """The least p-value of the three."""
    return min(ks_2samp(mine, true).pvalue for mine, true in zip(features(samples).T, TRUTH.T, strict=True))


def draw(sampler, steps, noise):
    schedule = LinearSchedule()
    table = sampler.plan(schedule, steps)
    x = torch.from_numpy(np.random.default_rng(5).standard_normal((COUNT, DIMENSIONS))) * table.start.sigma
    return sampler(lambda x, step: Prediction(x0=DATA.x0(x, step.alpha, step.sigma)), table, x, noise=noise)


def asks(name, said):
    noise = Counted()
    draw(ENTRIES[name].load()(**said), 3, noise)
    return noise.asked > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said", "steps"), CASES)
def test_samples_are_draws_of_the_data_and_not_where_the_noise_is_wrong(name, said, steps):
    sampler, noise = ENTRIES[name].load()(**said), Counted()
    assert p_value(draw(sampler, steps, noise)) > 1e-4
    if noise.asked:
        assert p_value(draw(sampler, steps, Counted(1.15))) < 1e-8


def test_samplers_that_say_they_draw_noise_are_among_those_seen():
    stochastic = {name for name, said, steps in (case.values for case in CASES) if asks(name, said)}
    assert stochastic >= {"ddpm", "ddim", "euler-ancestral", "edm", "dpmpp-sde", "annealed-langevin"}


def test_the_test_passes_true_draws_and_sees_another_width_and_another_weight():
    own = true_draws(COUNT, seed=2)
    assert p_value(own) > 1e-2
    centre = DATA.means[((own[:, None] - DATA.means) ** 2).sum(-1).argmin(dim=1)]
    assert p_value(centre + 1.1 * (own - centre)) < 1e-8
    first = ((own - DATA.means[0]) ** 2).sum(-1) < ((own - DATA.means[1]) ** 2).sum(-1)
    assert p_value(own[~first]) < 1e-8


def test_a_broken_eta_is_seen():
    class Loud(DDIM):
        """Adds the noise of eta = 1 and takes away that of eta = 0.8."""

        def write(self, table, walk):
            for here, there in walk.strides:
                seen, spread = table.look(here), there.sigma * sqrt(max(0.0, 1.0 - kept_noise(here, there) ** 2))
                a = sqrt(max(0.0, there.sigma**2 - (0.8 * spread) ** 2)) / here.sigma
                table.add(here, there, a * seen.x + (there.alpha - a * here.alpha) * seen.x0, noise=spread)

    assert p_value(draw(DDIM(eta=1.0), 300, Counted())) > 1e-3
    assert p_value(draw(Loud(eta=1.0), 300, Counted())) < 1e-8


def test_too_few_steps_of_a_first_order_sampler_are_seen():
    assert p_value(draw(DDIM(), 4, Counted())) < 1e-8
