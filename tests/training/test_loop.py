"""A run is the same whether it was interrupted or not, and never spoils its own past."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from tests.refusals import refused
from tests.training import line
from tests.training.line import Line, equal, weights_of
from zoo.diffusion.draws import rows_of_batch
from zoo.schema.errors import ConfigError, WeightsError
from zoo.training.engine import checkpoint
from zoo.training.engine.loop import Loop
from zoo.training.engine.settings import TrainSettings


def settings(**changes: object) -> TrainSettings:
    """Batches that end within epochs, and a checkpoint every step."""
    return line.settings(**{"batch_size": 3, "save_every": 1, "sheet_every": 6, **changes})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    loop = Loop(Line(dropout=0.3), settings(), tmp_path_factory.mktemp("whole"), identity="line")
    losses = []
    loop.run(lambda p: losses.append(p.loss))
    return losses, weights_of(loop)


@pytest.mark.slow
@pytest.mark.parametrize("stop", range(1, 20))
def test_resume_at_any_step_is_bit_exact(stop, uninterrupted, tmp_path):
    losses, weights = uninterrupted
    loop = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    mine = [loop.train_step() for _ in range(stop)]
    loop.save()
    resumed = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    assert resumed.resume() == []
    assert resumed.step == stop
    resumed.run(lambda p: mine.append(p.loss))
    assert mine == losses
    assert equal(weights_of(resumed), weights)


@pytest.mark.slow
def test_another_seed_is_another_run(uninterrupted, tmp_path):
    loop = Loop(Line(), settings(seed=1), tmp_path, identity="line")
    loop.run()
    assert not equal(weights_of(loop), uninterrupted[1])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_skipped_and_said(tmp_path, uninterrupted):
    loop = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    for _ in range(6):
        loop.train_step()
        loop.save()
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    file = newest / "network.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    resumed = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    (said,) = resumed.resume()
    assert "network.safetensors" in said
    assert resumed.step == 5
    resumed.run()
    assert equal(weights_of(resumed), uninterrupted[1])


@pytest.mark.parametrize("spoil", ["truncate", "remove", "manifest", "swap", "pickle"])
def test_every_kind_of_damage_is_a_weights_error_naming_the_file(tmp_path, spoil):
    loop = Loop(Line(), settings(), tmp_path, identity="line")
    loop.train_step()
    path = loop.save()
    if spoil == "truncate":
        (path / "average.safetensors").write_bytes((path / "average.safetensors").read_bytes()[:-1])
    elif spoil == "remove":
        (path / "average.safetensors").unlink()
    elif spoil == "manifest":
        (path / "manifest.json").write_text("{")
    elif spoil == "swap":
        shutil.copy(path / "network.safetensors", path / "average.safetensors")
    else:
        (path / "average.safetensors").write_bytes(b"cposix\nsystem\n(S'touch /tmp/zoo-was-here'\ntR.")
    with refused("checkpoint-damaged", WeightsError, naming=str(path)):
        checkpoint.read(path)
    assert not Path("/tmp/zoo-was-here").exists()
    with refused("checkpoint-damaged"):
        Loop(Line(), settings(), tmp_path, identity="line").resume()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    loop = Loop(Line(), settings(), tmp_path, identity="line")
    loop.train_step()
    loop.save()
    with refused("run-of-another-recipe", ConfigError):
        Loop(Line(), settings(), tmp_path, identity="curve").resume()


def test_a_crash_while_saving_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    loop = Loop(Line(), settings(), tmp_path, identity="line")
    loop.train_step()
    loop.save()
    loop.train_step()
    calls = []

    def full(path):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_flush", full)
    with refused("output-unwritable", WeightsError):
        loop.save()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    monkeypatch.undo()
    resumed = Loop(Line(), settings(), tmp_path, identity="line")
    resumed.resume()
    assert resumed.step == 1


@pytest.mark.slow
def test_an_interrupt_inside_a_step_leaves_no_half_step_behind(tmp_path, monkeypatch, uninterrupted):
    loop = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    update = loop.average.update

    def interrupted(network, step):
        if step == 6:  # the optimizer has stepped, the average has not
            raise KeyboardInterrupt
        update(network, step)

    monkeypatch.setattr(loop.average, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    resumed = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    resumed.resume()
    assert resumed.step == 5
    resumed.run()
    assert equal(weights_of(resumed), uninterrupted[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_its_step_and_saves_it(tmp_path, monkeypatch, uninterrupted, number):
    """Though the recipe saves every fifth step only, the step that was interrupted is not lost."""
    loop = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    update = loop.average.update

    def interrupted(network, step):
        if step == 7:  # the optimizer has stepped, the average has not
            os.kill(os.getpid(), number)
        update(network, step)

    monkeypatch.setattr(loop.average, "update", interrupted)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
            loop.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "step 7 is saved in" in ended.value.__notes__[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = Loop(Line(dropout=0.3), settings(), tmp_path, identity="line")
    resumed.resume()
    assert resumed.step == 7
    resumed.run()
    assert equal(weights_of(resumed), uninterrupted[1])


def test_a_second_signal_does_not_wait(tmp_path, monkeypatch):
    loop = Loop(Line(), settings(), tmp_path, identity="line")

    def interrupted(network, step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it waits")

    monkeypatch.setattr(loop.average, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert not (tmp_path / "checkpoints").exists()


def test_saving_a_step_again_never_takes_a_good_checkpoint_away(tmp_path, monkeypatch):
    loop = Loop(Line(), settings(keep=1), tmp_path, identity="line")
    loop.train_step()
    path = loop.save()
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *a, **k: pytest.fail("a checkpoint was removed"))
    assert loop.save() == path
    monkeypatch.undo()
    (path / "network.safetensors").write_bytes(b"spoiled")
    checkpoint.read(loop.save())


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    objective = Line()
    objective.poison = 4 * 3
    loop = Loop(objective, settings(), tmp_path, identity="line")
    with refused("training-not-finite"):
        loop.run()
    assert loop.step == 4
    assert all(bool(torch.isfinite(v).all()) for v in weights_of(loop).values())
    tensors, _, step = checkpoint.read(checkpoint.newest(tmp_path / "checkpoints")[0])  # type: ignore[arg-type]
    assert step == 4
    assert all(bool(torch.isfinite(v).all()) for group in tensors.values() for v in group.values())


def test_only_the_newest_checkpoints_are_kept_and_the_run_can_be_read(tmp_path):
    loop = Loop(Line(), settings(keep=2), tmp_path, identity="line")
    loop.run()
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000019", "step-00000020"]
    lines = (tmp_path / "scalars.csv").read_text().splitlines()
    assert lines[0] == "step,name,value"
    assert any(text.startswith("20,validation/loss,") for text in lines)
    assert (tmp_path / "samples" / "step-00000020.png").exists()
    json.loads((tmp_path / "checkpoints" / "step-00000020" / "manifest.json").read_text())


@pytest.mark.slow
def test_a_resumed_run_s_curve_has_each_step_once(tmp_path):
    whole = Loop(Line(), settings(validate_every=1), tmp_path / "whole", identity="line")
    whole.run()
    loop = Loop(Line(), settings(validate_every=1, save_every=4), tmp_path / "parts", identity="line")
    with pytest.raises(KeyboardInterrupt):
        loop.run(lambda p: (_ for _ in ()).throw(KeyboardInterrupt) if p.step == 7 else None)
    with (tmp_path / "parts/scalars.csv").open("a") as file:
        file.write("8,valida")  # a line that a crash cut
    resumed = Loop(Line(), settings(validate_every=1), tmp_path / "parts", identity="line")
    resumed.resume()
    resumed.run()

    def curve(folder):
        return [text for text in (folder / "scalars.csv").read_text().splitlines() if "per_second" not in text]

    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


@pytest.mark.slow
def test_training_learns(tmp_path):
    loop = Loop(
        Line(), settings(steps=300, batch_size=16, learning_rate=1e-2, save_every=300), tmp_path, identity="line"
    )
    before = loop.validate()["loss"]
    assert loop.run()["loss"] < 0.5 * before


def test_the_rate_warms_up_stays_and_decays():
    plan = settings(learning_rate=1.0, steps=10, warmup_steps=2, decay_steps=5)
    rates = [plan.rate(i) for i in range(10)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:6] == [1.0] * 4
    assert rates[6:] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_every_row_is_seen_once_an_epoch_and_order_changes():
    order = [int(r) for step in range(10) for r in rows_of_batch(0, step, 3, 10)]
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]


@pytest.mark.parametrize("wrong", [{"precision": "fp64"}, {"steps": 0}, {"batch_size": 0}, {"save_every": 0}])
def test_impossible_settings_are_refused_by_name(wrong):
    with refused("choice-unknown|number-out-of-range", ConfigError, naming=next(iter(wrong))):
        settings(**wrong)
