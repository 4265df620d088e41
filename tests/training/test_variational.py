"""The bound against torch's own distributions, and against likelihoods that are known."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributions import Normal, kl_divergence

from tests import golden_sets
from tests.refusals import refused
from zoo.diffusion.schedules import CosineSchedule, FlowSchedule, LinearSchedule
from zoo.training.objectives import variational
from zoo.training.objectives.variational import Posterior, bits_per_dimension, discretised_log_likelihood, prior, term

SCHEDULE = LinearSchedule(steps=20, beta_start=0.005, beta_end=0.5)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_is_torchs():
    a, b, c, d = (normal(50, seed=i) for i in range(4))
    ours = variational.gaussian_kl(a, b, c, d)
    theirs = kl_divergence(Normal(a, torch.exp(0.5 * b)), Normal(c, torch.exp(0.5 * d)))
    assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("deviation", [1e-3, 0.01, 0.3, 5.0])
def test_the_discretised_decoder_is_a_distribution_over_8_bit_values(deviation):
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1.0
    for mean in (-1.2, -0.4, 0.0, 0.99):
        log_p = discretised_log_likelihood(values, torch.full((256,), mean).double(), torch.tensor(deviation).log())
        assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    inner = values[100:150]
    ours = discretised_log_likelihood(inner, torch.zeros(50).double(), torch.tensor(0.5).double().log())
    cell = Normal(0.0, 0.5).cdf(inner + 1 / 255) - Normal(0.0, 0.5).cdf(inner - 1 / 255)
    assert torch.allclose(ours, cell.log())


def test_the_posterior_is_bayes_rule():
    # q(x_s | x_t, x0) from q(x_s | x0) and q(x_t | x_s), by multiplying densities.
    t = np.array([5, 12]) / 20
    x0, x_t = normal(2, 3), normal(2, 3, seed=1)
    alpha, sigma = (torch.from_numpy(v)[:, None] for v in SCHEDULE(t - 1 / 20))
    beta = torch.from_numpy(SCHEDULE.betas[[4, 11]])[:, None]
    precision = 1 / sigma**2 + (1 - beta) / beta
    mean = (alpha * x0 / sigma**2 + torch.sqrt(1 - beta) * x_t / beta) / precision
    ours = Posterior(SCHEDULE, t, x0)
    assert torch.allclose(ours.mean(x_t, x0), mean)
    assert torch.allclose(ours.log_small, -precision.log())


def test_a_learned_logit_goes_from_the_small_variance_to_beta():
    q = Posterior(SCHEDULE, np.array([0.05, 0.5, 1.0]), normal(3, 2))
    one = torch.ones(3, 2).double()
    assert torch.allclose(q.log_variance(-one, "fixed_small"), q.log_small.expand(3, 2))
    assert torch.allclose(q.log_variance(one, "fixed_small"), q.log_beta.expand(3, 2))
    assert torch.equal(q.log_variance(None, "fixed_small"), q.log_small)
    large = q.log_variance(None, "fixed_large")
    assert torch.equal(large[1:], q.log_beta[1:])
    assert torch.equal(large[0], q.log_small[0])  # and not beta, which is smaller by far
    assert torch.isfinite(q.log_small).all()
    # The first point's small variance is 0; the second's stands for it.
    assert float(q.log_small[0, 0]) == float(Posterior(SCHEDULE, np.array([0.1]), normal(1, 2)).log_small[0, 0])


def test_knowing_x0_leaves_no_term_but_the_decoders():
    x0, eps = normal(4, 3, 2, 2).clamp(-1, 1), normal(4, 3, 2, 2, seed=1)
    t = np.array([1, 2, 9, 20]) / 20
    alpha, sigma = (torch.from_numpy(v).view(-1, 1, 1, 1) for v in SCHEDULE(t))
    found = term(
        SCHEDULE, t, x0=x0, x_t=alpha * x0 + sigma * eps, x0_hat=x0, logit=-torch.ones_like(x0)
    )  # fmt: skip
    assert torch.allclose(found[1:], torch.zeros(3).double(), atol=1e-12)
    assert float(found[0]) > 0.0


def gaussian_data(deviation, seed=0):
    """Pictures of 8-bit values, white Gaussian noise of a deviation, and E[x0 | x_t] for them."""
    x0 = (deviation * normal(64, 3, 4, 4, seed=seed)).clamp(-0.99, 0.99)
    x0 = torch.round((x0 + 1) * 127.5) / 127.5 - 1

    def predict(x_t, t):
        alpha, sigma = (float(v) for v in CosineSchedule(steps=200)(t))
        return alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2) * x_t, None

    return x0, predict


@pytest.mark.slow
def test_the_bound_of_a_right_denoiser_is_the_datas_likelihood():
    deviation, schedule = 0.2, CosineSchedule(steps=200)
    x0, predict = gaussian_data(deviation)
    entropy = -discretised_log_likelihood(x0, torch.zeros_like(x0), torch.tensor(deviation).double().log())
    nll = float(entropy.mean()) / np.log(2.0)
    found = float(bits_per_dimension(predict, schedule, x0, lambda i: normal(*x0.shape, seed=100 + i)).mean())
    # It is a bound in the mean; of 3,072 numbers' noise it has some hundredths.
    assert -0.05 < found - nll < 0.1  # the first point's variance is not beta, as elsewhere
    # And a denoiser that is wrong is further away.
    wrong = float(
        bits_per_dimension(
            lambda x, t: (0.5 * predict(x, t)[0], None), schedule, x0, lambda i: normal(*x0.shape, seed=100 + i)
        ).mean()
    )
    assert wrong > found + 0.1


def test_the_prior_term_is_nothing_where_nothing_is_left_of_the_picture():
    x0 = normal(3, 2, 2, 2).clamp(-1, 1)
    assert float(prior(CosineSchedule(), x0).max()) < 1e-4
    assert float(prior(LinearSchedule(steps=20, beta_end=0.02), x0).min()) > 0.01


def test_a_schedule_without_betas_has_no_bound():
    with refused("bound-undefined"):
        variational.discrete(FlowSchedule())


@pytest.mark.gold("sampling/guided_diffusion")
def test_the_bound_of_fixed_large_is_openais_term_by_term():
    io = load_file(golden_sets.folder("sampling/guided_diffusion") / "io.safetensors")
    tensors = {name: value.double() for name, value in io.items() if value.is_floating_point()}
    steps, s = 40, 0.4
    # get_named_beta_schedule("linear", 40)
    schedule = LinearSchedule(steps=steps, beta_start=1e-4 * 1000 / steps, beta_end=0.02 * 1000 / steps)
    assert np.allclose(schedule.alphas_bar, tensors["bpd_fixed_large/alphas_cumprod"].numpy())
    x0, mu = tensors["x_0"], tensors["mu"]

    def predict(x_t, t):
        ab = float(schedule.alphas_bar[round(t * steps) - 1])
        v = ab * s**2 + 1 - ab
        inner = (x_t * mu).sum((1, 2, 3), keepdim=True)
        eps = (1 - ab) ** 0.5 / v * (x_t - ab**0.5 * mu * torch.tanh(ab**0.5 * inner / v))
        return ((x_t - (1 - ab) ** 0.5 * eps) / ab**0.5).clamp(-1, 1), None

    found = []
    for row in range(steps):  # the largest t first
        t = (steps - row) / steps
        alpha, sigma = (float(value) for value in schedule(t))
        x_t = alpha * x0 + sigma * tensors["noise"][row]
        found.append(term(schedule, np.full(len(x0), t), x0=x0, x_t=x_t, x0_hat=predict(x_t, t)[0], logit=None))
    theirs = tensors["bpd_fixed_large/f64/vb"]
    ours = torch.stack(found, dim=1)
    assert torch.allclose(ours[:, :-1], theirs[:, :-1], rtol=1e-6, atol=1e-9)
    assert torch.allclose(ours[:, -1], theirs[:, -1], rtol=5e-3)  # a tanh stands for the Gaussian's mass there
    assert torch.allclose(prior(schedule, x0), tensors["bpd_fixed_large/f64/prior_bpd"], rtol=1e-6)
