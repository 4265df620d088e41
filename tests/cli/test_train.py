"""`zoo train` says from its first steps how long it will take, once, and where it writes."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import zoo
from zoo.cli.main import run
from zoo.cli.train import Estimate, duration

ROOT = Path(__file__).parents[2]


def test_the_estimate_is_of_the_speed_after_the_first_steps():
    """Three slow steps, which compile, then a second each."""
    estimate, said = Estimate(), []
    for step in range(1, 101):
        now = 60.0 * step if step <= 3 else 180.0 + (step - 3)
        said.append(estimate.after(step, 100, now))
    told = [(step, left) for step, left in enumerate(said, 1) if left is not None]
    assert told == [(8, pytest.approx(92.0))]


def test_fast_steps_are_measured_for_some_seconds():
    estimate = Estimate()
    said = [estimate.after(step, 10**6, step * 0.01) for step in range(1, 1000)]
    first = next(i for i, left in enumerate(said, 1) if left is not None)
    assert 300 <= first <= 310
    assert sum(left is not None for left in said) == 1


@pytest.mark.parametrize(("seconds", "said"), [(45, "45 seconds"), (720, "12 minutes"), (12600, "3.5 hours")])
def test_durations_are_read_easily(seconds, said):
    assert duration(seconds) == said


def test_the_command_says_it(monkeypatch, capsys, tmp_path):
    def trained(recipe, *, callback, **_):
        for step in range(1, 30):
            monkeypatch.setattr("zoo.cli.train.monotonic", lambda step=step: float(step))
            callback(SimpleNamespace(step=step, steps=1000, loss=0.5, images_per_second=7.0))
        return SimpleNamespace(
            notes=[], validation={}, others=[], card="card.yaml", steps=29, seconds=28.0, sheet=None, draw={}
        )

    monkeypatch.setattr(zoo, "train", trained)
    assert run(["train", str(ROOT / "recipes" / "signals" / "sines-64.yaml")]) == 0
    said = capsys.readouterr().err
    assert said.count("about 17 minutes for 992") == 1
    assert "'runs/sines-64'" in said
