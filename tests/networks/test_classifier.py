import pytest
import torch

from tests.networks.random_weights import normal, randomise
from tests.refusals import refused
from zoo.networks.classifier import NoiseAwareClassifier
from zoo.schema.errors import ConfigError, UsageError

SMALL = {
    "classes": 5, "size": 8, "width": 16, "mult": (1, 2), "blocks": 1, "attention_levels": (1,), "head_width": 8,
    "groups": 8,
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("pool", ["attention", "mean"])
def test_logits_are_of_the_sample_alone_and_of_its_time(pool):
    model = randomise(NoiseAwareClassifier(**SMALL, pool=pool))
    x, time = normal(3, 3, 8, 8), torch.tensor([0.0, 10.0, 900.0])
    logits = model(x, time)
    assert logits.shape == (3, 5)
    assert torch.allclose(model(x[1:2], time[1:2]), logits[1:2], atol=1e-12)
    assert not torch.allclose(model(x, time + 50), logits, atol=1e-3)


@torch.no_grad()
def test_mean_pool_takes_any_size_and_attention_pool_its_own():
    x, time = normal(1, 3, 16, 8), torch.zeros(1)
    assert randomise(NoiseAwareClassifier(**SMALL, pool="mean"))(x, time).shape == (1, 5)
    with refused("size-untrained", UsageError, naming="8x8 and is given 8x16"):
        randomise(NoiseAwareClassifier(**SMALL))(x, time)


def test_checkpointing_gives_the_same_gradient():
    model = randomise(NoiseAwareClassifier(**SMALL))
    x, time = normal(2, 3, 8, 8).requires_grad_(), torch.tensor([3.0, 700.0])
    (plain,) = torch.autograd.grad(model(x, time)[:, 1].sum(), x)
    model.checkpointing = True
    assert torch.allclose(torch.autograd.grad(model(x, time)[:, 1].sum(), x)[0], plain, atol=1e-12)
    assert plain.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"size": 9}, "size-indivisible: size"),
        ({"classes": 0}, "number-out-of-range: classes"),
        ({"pool": "max"}, "choice-unknown"),
        ({"width": 12}, "width-indivisible: width"),
        ({"attention_levels": (4,)}, "network-levels-invalid"),
        ({"head_width": None}, "arguments-conflict: head_width"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(given, refusal):
    with refused(refusal, ConfigError):
        NoiseAwareClassifier(**{**SMALL, **given})
