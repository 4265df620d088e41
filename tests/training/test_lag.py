"""Losses that are looked at some steps later: the same run, and a bad step changes nothing all the same."""

from __future__ import annotations

import pytest
import torch

from tests.refusals import refused
from tests.training.line import Line, equal, largest_difference, settings, weights_of
from zoo.training.engine import checkpoint
from zoo.training.engine.deferred_losses import Lagged
from zoo.training.engine.loop import Loop
from zoo.training.engine.state import optimizer_tensors


def loop_of(folder, objective=None, *, lag, **changes):
    return Loop(objective or Line(), settings(**changes), folder, identity="line", lag=lag)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"accumulate": 2}, {"average": (0.9, 0.99)}])
def test_it_is_the_same_run(tmp_path, changes):
    at_once, later = (loop_of(tmp_path / str(lag), lag=lag, **changes) for lag in (0, 3))
    for loop in (at_once, later):
        loop.run()
    assert later.known[0] == at_once.known[0] == 20
    assert later.known[1] == pytest.approx(at_once.known[1], rel=1e-5)
    assert largest_difference(weights_of(at_once), weights_of(later)) < 1e-6  # averages add up in another order


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("lag", [1, 3, 50])
def test_a_bad_step_leaves_weights_moments_and_averages_as_they_were(tmp_path, optimizer, lag):
    wanted = loop_of(tmp_path / "wanted", lag=3, optimizer=optimizer)
    for _ in range(7):
        wanted.train_step()
    objective = Line()
    objective.poison = 4 * 7 + 3  # the last sample of step 7
    loop = loop_of(tmp_path / "bad", objective, lag=lag, optimizer=optimizer)
    with refused("training-not-finite"):
        loop.run()
    assert loop.step == 7
    assert equal(weights_of(loop), weights_of(wanted))
    moments = [optimizer_tensors(one.network, one.optimizers) for one in (loop, wanted)]
    assert equal(*moments)
    tensors, _, step = checkpoint.read(checkpoint.newest(tmp_path / "bad" / "checkpoints")[0])  # type: ignore[arg-type]
    assert step == 5
    assert all(bool(torch.isfinite(v).all()) for group in tensors.values() for v in group.values())


def test_no_checkpoint_is_made_of_a_step_whose_loss_nobody_has_seen(tmp_path):
    objective = Line()
    objective.poison = 4 * 4 + 3  # step 4 is the last before the first checkpoint, of step 5
    loop = loop_of(tmp_path, objective, lag=50)
    with refused("training-not-finite"):
        loop.run()
    assert checkpoint.newest(tmp_path / "checkpoints")[0] is None


def test_losses_arrive_late_in_order_and_none_after_a_bad_one():
    lagged = Lagged(torch.device("cpu"), lag=2)
    for step, loss in enumerate([1.0, 2.0, float("inf"), 4.0]):
        lagged.send(step, lagged.judge(torch.tensor(loss), torch.tensor(1.0)))
    assert lagged.arrived() == [(0, 1.0, 1.0), (1, 2.0, 1.0)]
    assert float(lagged.flag) == 1.0
    assert [step for step, _, _ in lagged.arrived(all=True)] == [2]
    lagged.reset()
    assert lagged.arrived(all=True) == []
    assert float(lagged.flag) == 0.0


def test_what_decides_on_the_host_is_seen_at_once(tmp_path):
    assert loop_of(tmp_path, lag=None).lagged is None  # a CPU has nothing to wait for
    remembering = Line()
    remembering.state = dict  # type: ignore[attr-defined]
    assert loop_of(tmp_path, remembering, lag=3).lagged is None
    assert loop_of(tmp_path, lag=3, precision="fp16").lagged is None
