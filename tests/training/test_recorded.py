"""A recorded step is the step: the same run, by a recording that only computes on the device."""

from __future__ import annotations

import pytest
import torch

import zoo
from tests.refusals import refused
from tests.training.line import Line, equal, settings, weights_of
from tests.training.test_denoising import PAIRS, objective
from tests.training.toy import Net, Pictures
from zoo.diffusion import philox
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.low_res import GaussianAugmentation
from zoo.diffusion.schedules import CosineSchedule
from zoo.networks.unet import UNet
from zoo.schema.errors import ConfigError, NumericError
from zoo.training.engine import objective as engine_objective
from zoo.training.engine.loop import Loop
from zoo.training.engine.objective import Batch
from zoo.training.engine.recorded import WARM_UP
from zoo.training.objectives.denoising import Denoising


def words():
    """A small U-Net that reads captions through a tower which learns along."""
    torch.manual_seed(0)
    inner = UNet(in_channels=3, out_channels=3, width=8, mult=[1], blocks=1, attention_levels=[0], heads=2,
                 context_width=160, groups=4)  # fmt: skip
    schedule, parameterization, time_input = PAIRS["v"]
    network = Denoiser(network=inner, schedule=schedule, parameterization=parameterization, time_input=time_input)
    return Denoising(
        network=network, train=Pictures(), validation=Pictures(count=6, seed=9), cache=None,  # type: ignore[arg-type]
        conditioner=zoo.load("emoji-base-32-text"), train_conditioner=True, condition_dropout=0.5, sheet_steps=2,
    )  # fmt: skip


MADE = {
    "v": lambda: objective("v"),
    "edm": lambda: objective("edm"),
    "labels": lambda: objective("v", net=Net(classes=3), labels="group", condition_dropout=0.5),
    "levels": lambda: objective(
        "v", net=Net(channels=6), low_res=GaussianAugmentation(schedule=CosineSchedule()), low_size=4
    ),
    "captions": words,
}


def distance(first, second):
    """The norm of the difference of all weights."""
    return sum(float((first[name] - second[name]).square().sum()) for name in first) ** 0.5


def loop_of(folder, made, monkeypatch=None, *, graphs=False, watched=None, **changes):
    def record(function):
        """Runs the function each time, as a graph would, with everything forbidden that isn't the device's."""
        result = torch.empty(3)

        def again():
            def forbidden(*_, **__):
                raise AssertionError("the host decides something while a recorded step computes")

            with monkeypatch.context() as patched:
                for name in ("draw", "uniform", "uniforms"):
                    patched.setattr(Batch, name, forbidden)
                patched.setattr(engine_objective, "put", forbidden)
                result.copy_(function())
            watched.append(1)

        return result, again

    named = {"steps": 8, "batch_size": 4, "validate_every": 8, "save_every": 8, "sheet_every": 8, **changes}
    return Loop(made, settings(**named, graphs=graphs), folder, identity="x", lag=3, record=record if graphs else None)


@pytest.mark.parametrize("what", MADE)
def test_it_is_the_same_run_and_the_recording_decides_nothing(tmp_path, monkeypatch, what):
    watched = []
    changes = {"optimizer": "muon" if what == "captions" else "adamw", "average": (0.9, 0.5), "accumulate": 2,
               "learning_rate": 1e-4}  # fmt: skip
    plain = loop_of(tmp_path / "plain", MADE[what](), **changes)
    recorded = loop_of(tmp_path / "recorded", MADE[what](), monkeypatch, graphs=True, watched=watched, **changes)
    for loop in (plain, recorded):
        for _ in range(8):
            loop.train_step()
        loop.settle()
    assert len(watched) == 8 - WARM_UP
    near = 1e-3  # the rates are float32 on the device, which Muon's bfloat16 products make more of
    assert recorded.known[1] == pytest.approx(plain.known[1], rel=near)
    before = weights_of(loop_of(tmp_path / "before", MADE[what](), **changes))
    moved, apart = distance(before, weights_of(plain)), distance(weights_of(plain), weights_of(recorded))
    assert apart < near * moved


def test_a_bad_step_is_found_and_changes_nothing(tmp_path, monkeypatch):
    made, watched = objective("v"), []
    given = made.given
    bad = 4 * 5  # the first sample of step 5

    def poisoned(network, batch):
        found = given(network, batch)
        return found | {"weight": found["weight"] * (float("nan") if batch.samples[0] >= bad else 1.0)}

    made.given = poisoned  # type: ignore[method-assign]
    loop = loop_of(tmp_path, made, monkeypatch, graphs=True, watched=watched)
    for _ in range(5):
        loop.train_step()
    before = weights_of(loop)
    with refused("training-not-finite", NumericError):
        for _ in range(5):
            loop.train_step()
    assert loop.step == 5
    assert len(watched) > 5 - WARM_UP
    assert equal(before, weights_of(loop))


def test_what_decides_on_the_host_is_refused(tmp_path, monkeypatch):
    blurred = objective(
        "v",
        net=Net(channels=6),
        low_res=GaussianAugmentation(schedule=CosineSchedule()),
        low_size=4,
        blur_probability=0.5,
    )
    for made in (Line(), objective("v", times="importance"), blurred):
        with refused("graphs-unfit", ConfigError):
            loop_of(tmp_path, made, monkeypatch, graphs=True, watched=[])
    assert loop_of(tmp_path, Line()).recorded is None


def test_what_a_recording_draws_from_is_kept_by_it():
    samples = torch.arange(4)
    key = philox.key_of(5, "kept")
    with philox.held() as kept:
        drawn = philox.words(key, samples, 8)
    for number in range(300):  # more addresses than the cache holds
        philox.words(philox.key_of(number, "others"), samples, 1)
    assert len(kept) == 1
    assert kept[0] is not philox._fixed(key, 0, 0, samples.device)  # the cache dropped it, and the recording has it
    assert torch.equal(philox.words(key, samples, 8), drawn)
