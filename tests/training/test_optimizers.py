"""Muon makes orthogonal steps, and is the published one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.refusals import refused
from tests.training.line import Line, equal, settings, weights_of
from zoo.schema.errors import ConfigError
from zoo.training.engine.loop import Loop
from zoo.training.engine.optimizers import Muon, optimizers, orthogonalized


@pytest.mark.parametrize("shape", [(8, 8), (16, 40), (40, 16), (3, 12, 27)])
def test_an_update_is_made_orthogonal(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
    # Five rounds bring singular values near 1, not to it; the smallest of a square one lag behind.
    assert float(values.max()) < 1.3
    assert float(values.median()) > 0.7
    if shape[-1] != shape[-2]:
        assert float(values.min()) > 0.6


@pytest.mark.parametrize("shape", [(3, 12, 27), (2, 40, 16)])
def test_sums_joined_to_their_products_give_the_same_update(shape):
    torch.manual_seed(0)
    update = torch.randn(shape)
    apart = orthogonalized(update, joined=True) - orthogonalized(update, joined=False)
    assert float(apart.abs().max()) < 0.08  # bfloat16 rounds in other places; entries are about 0.2
    assert float(apart.abs().mean()) < 0.01


def test_an_update_keeps_its_directions():
    torch.manual_seed(0)
    update = torch.randn(12, 30)
    u, _, v = torch.linalg.svd(update, full_matrices=False)
    found = u.T @ orthogonalized(update) @ v.T
    assert float((found - torch.diag(found.diag())).abs().max()) < 0.07  # bfloat16's rounding


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_muon_agrees_with_torch_s(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    # torch's scale `match_rms_adamw` is Liu et al.'s too: 0.2 sqrt(max(m, n)).
    mine = Muon([ours], lr=0.02, weight_decay=0.1, momentum=0.9)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.9, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        grad = torch.randn(shape)
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        reference.step()
    moved, apart = ((x - theirs).detach().norm() for x in (start, ours))
    assert float(apart) < 0.04 * float(moved)  # bfloat16's rounding


def test_a_convolution_is_read_as_a_matrix():
    torch.manual_seed(0)
    kernel, matrix = nn.Parameter(torch.randn(8, 4, 3, 3)), nn.Parameter(torch.zeros(8, 36))
    matrix.data.copy_(kernel.data.reshape(8, 36))
    grad = torch.randn(8, 4, 3, 3)
    kernel.grad, matrix.grad = grad, grad.reshape(8, 36).clone()
    Muon([kernel], lr=0.1).step()
    Muon([matrix], lr=0.1).step()
    assert torch.equal(kernel.reshape(8, 36), matrix)


def test_every_parameter_has_one_optimizer_and_only_matrices_decay():
    network = Line().network
    made = optimizers(network, "muon", learning_rate=1e-3, weight_decay=0.5, betas=(0.9, 0.99))
    groups = [group for optimizer in made for group in optimizer.param_groups]
    owned = [id(p) for group in groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in network.parameters())
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.5) for p in group["params"])
    (muon,) = (o for o in made if isinstance(o, Muon))
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(4, 4, 1, 1)]  # neither the first nor the last


def test_muon_s_state_resumes_bit_for_bit(tmp_path):
    plan = settings(optimizer="muon", steps=8)
    whole = Loop(Line(), plan, tmp_path / "whole", identity="line")
    whole.run()
    loop = Loop(Line(), plan, tmp_path / "parts", identity="line")
    for _ in range(4):
        loop.train_step()
    loop.save()
    resumed = Loop(Line(), plan, tmp_path / "parts", identity="line")
    resumed.resume()
    resumed.run()
    assert equal(weights_of(resumed), weights_of(whole))
    with refused("run-of-another-recipe", ConfigError, naming="muon"):
        Loop(Line(), settings(steps=8), tmp_path / "parts", identity="line").resume()
