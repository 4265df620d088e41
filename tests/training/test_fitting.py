"""A run that fits a time, by a clock that only these tests move."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.refusals import refused
from tests.training.line import Line, equal, settings, weights_of
from zoo.schema.errors import ConfigError
from zoo.training.engine.loop import Loop
from zoo.training.engine.time_limit import ENDLESS, Fitting


class Clock:
    """Each step takes `second(step)` seconds, each validation `validation`."""

    def __init__(self, second=lambda step: 1.0, validation=0.0):
        self.now, self.second, self.validation = 100.0, second, validation

    def __call__(self):
        return self.now

    def move(self, loop):
        step, validate = loop.train_step, loop.validate

        def timed():
            self.now += self.second(loop.step)
            return step()

        def judged():
            self.now += self.validation
            return validate()

        loop.train_step, loop.validate = timed, judged
        return loop


def run(folder, clock, **changes):
    wanted = settings(**{"seconds": 100.0, "steps": 40, "decay_steps": 20, "warmup_steps": 4, "save_every": 10**6,
                         "validate_every": 10**6, **changes})  # fmt: skip
    loop = clock.move(Loop(Line(), wanted, folder, identity="line", clock=clock))
    rates = []
    loop.run(lambda p: rates.append(loop.optimizers[0].param_groups[0]["lr"]))
    return loop, rates


@pytest.mark.slow
def test_a_steady_run_has_as_many_steps_as_fit(tmp_path):
    clock = Clock()
    loop, rates = run(tmp_path, clock)
    assert 95 <= loop.step <= 98  # 2 % are kept for the last validation
    assert clock.now - 100.0 <= 100.0
    assert loop.step == loop.settings.steps == len(rates)


@pytest.mark.slow
def test_the_rate_decays_over_the_recipe_s_share_and_ends_with_the_time(tmp_path):
    loop, rates = run(tmp_path, Clock())
    assert loop.settings.decay_steps == pytest.approx(loop.step / 2, abs=2)
    assert rates[-1] < 0.05 * max(rates)
    highest = max(rates)
    assert rates[: len(rates) // 2].count(highest) > len(rates) // 3
    decaying = rates[len(rates) // 2 + 2 :]
    assert decaying == sorted(decaying, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "second",
    [
        lambda step: 8.0 if step == 0 else 0.5,  # compiling
        lambda step: 0.5 if step < 30 else 1.5,  # another job comes
        lambda step: 1.5 if step < 20 else 0.4,  # and goes
    ],
)
def test_an_uneven_run_ends_in_time_with_its_rate_near_zero(tmp_path, second):
    clock = Clock(second)
    _, rates = run(tmp_path, clock)
    assert 90.0 <= clock.now - 100.0 <= 101.5
    assert rates[-1] < 0.1 * max(rates)
    jumps = [later / earlier for earlier, later in pairwise(rates[8:])]
    assert max(jumps) < 1.35  # no rate leaps up


@pytest.mark.slow
def test_the_time_of_validations_counts(tmp_path):
    clock = Clock(validation=3.0)
    loop, _ = run(tmp_path, clock, validate_every=4)  # ten of them
    assert clock.now - 100.0 <= 101.0
    assert loop.fitting.ending == pytest.approx(3.0)
    assert loop.step < 80


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_what_was_decided_and_the_rest_of_the_time(tmp_path):
    clock = Clock()
    wanted = settings(seconds=100.0, steps=40, decay_steps=20, save_every=30, validate_every=10**6)
    loop = clock.move(Loop(Line(), wanted, tmp_path, identity="line", clock=clock))

    def interrupt(p):
        if p.step == 35:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(interrupt)
    later = Clock()
    resumed = Loop(Line(), wanted, tmp_path, identity="line", clock=later)
    resumed.resume()
    assert resumed.step == 35  # an interrupt saves
    assert resumed.settings.steps == loop.settings.steps
    assert resumed.settings.decay_steps == loop.settings.decay_steps
    later.move(resumed).run()
    assert 92 <= resumed.step <= 98
    assert later.now - 100.0 <= 66.0  # thirty-five seconds were used before


@pytest.mark.slow
def test_a_finished_run_that_is_given_more_time_uses_it(tmp_path):
    first, _ = run(tmp_path, Clock())
    wanted, later = replace(first.fitting.recipe, seconds=200.0), Clock()
    resumed = Loop(Line(), wanted, tmp_path, identity="line", clock=later)
    resumed.resume()
    assert resumed.step == first.step
    later.move(resumed).run()
    assert 185 <= resumed.step <= 200
    assert resumed.settings.rate(resumed.step - 1) < 0.05 * resumed.settings.learning_rate


def test_a_finished_run_that_is_resumed_as_it_was_tells_of_no_change(tmp_path):
    """What a run made of warm-up and decay to fit its time is nothing that the next sitting changed."""
    first, _ = run(tmp_path, Clock())
    assert first.settings.warmup_steps != first.fitting.recipe.warmup_steps or first.settings.decay_steps > 20
    same = Loop(Line(), first.fitting.recipe, tmp_path, identity="line", clock=Clock())
    assert same.resume() == []
    other = replace(first.fitting.recipe, warmup_steps=3)
    assert Loop(Line(), other, tmp_path, identity="line", clock=Clock()).resume() == [
        "train.warmup_steps is 3 from here on and was 4"
    ]


@pytest.mark.slow
def test_the_same_clock_gives_the_same_weights(tmp_path):
    runs = [run(tmp_path / str(i), Clock())[0] for i in range(2)]
    assert equal(*map(weights_of, runs))


def test_a_time_too_short_for_a_second_step_still_ends_in_weights(tmp_path):
    loop, _ = run(tmp_path, Clock(), seconds=0.5)
    assert loop.step == 1


def test_without_seconds_nothing_is_fitted_and_nonsense_is_refused(tmp_path):
    loop = Loop(Line(), settings(), tmp_path, identity="line")
    assert loop.fitting is None
    for wrong in (-1.0, float("inf"), float("nan")):
        with refused("number-out-of-range", ConfigError, naming="train.seconds"):
            settings(seconds=wrong)


def test_a_decay_that_has_begun_goes_on_from_where_it_is():
    plan = settings(seconds=100.0, steps=10, decay_steps=10, warmup_steps=1)
    fitting = Fitting(plan)
    now = fitting.begin()
    assert now.steps == ENDLESS
    for step in range(1, 40):
        before = now.rate(step) if now.steps < ENDLESS else None
        now = fitting.after(step, float(step), now)
        if before is not None:
            assert now.rate(step) == pytest.approx(before, rel=0.1)
    slower = fitting.after(40, 60.0, replace(now))  # twenty seconds lost
    assert slower.steps < now.steps
    assert slower.rate(40) == pytest.approx(now.rate(40), rel=0.1)


def sheets(loop):
    """The steps at which a loop drew, validated and saved."""
    found: dict[str, list[int]] = {"sheet": [], "validate": [], "save": []}
    for what, owner in (("sheet", loop.objective), ("validate", loop), ("save", loop)):
        before = getattr(owner, what)
        setattr(owner, what, lambda *a, f=before, w=what: (found[w].append(loop.step), f(*a))[1])
    return found


def test_validations_sheets_and_checkpoints_keep_their_share_of_the_recipe(tmp_path):
    """A recipe of 4000 steps with a validation every 400 has ten, in however few steps its time allows."""
    clock = Clock()
    wanted = settings(seconds=100.0, steps=4000, decay_steps=0, save_every=400, validate_every=400, sheet_every=800)
    loop = clock.move(Loop(Line(), wanted, tmp_path, identity="line", clock=clock))
    seen = sheets(loop)
    loop.run()
    assert 95 <= loop.step <= 98
    assert len(seen["validate"]) == len(seen["save"]) == 10
    assert len(seen["sheet"]) == 5
    assert all(9 <= later - earlier <= 11 for earlier, later in pairwise(seen["validate"][:-1]))


def test_sheets_that_take_long_are_fewer(tmp_path):
    clock = Clock()
    wanted = settings(seconds=100.0, steps=100, decay_steps=0, save_every=10, validate_every=10, sheet_every=10)
    loop = clock.move(Loop(Line(), wanted, tmp_path, identity="line", clock=clock))
    draw = loop.objective.sheet
    seen = sheets(loop)

    def slowly(network):
        clock.now += 5.0
        seen["sheet"].append(loop.step)
        return draw(network)

    loop.objective.sheet = slowly
    loop.run()
    assert 2 <= len(seen["sheet"]) <= 4  # of ten, with the last
    assert len(seen["validate"]) >= 8
    assert clock.now - 100.0 <= 102.0


def test_less_time_than_was_used_takes_no_step(tmp_path):
    first, _ = run(tmp_path, Clock())
    saved = first.seconds
    resumed = Loop(Line(), replace(first.fitting.recipe, seconds=50.0), tmp_path, identity="line", clock=Clock())
    resumed.resume()
    resumed.run()
    assert resumed.step == first.step
    assert resumed.seconds == saved
