"""A run that fits a time: its number of steps is decided on the way (`train.seconds`).

The first steps, which compile and fill caches, are not counted. Then the rate is measured, the number of steps set to
what the time allows, and the learning-rate schedule of the recipe stretched or squeezed to it: it decays over the same
share of the run, and warms up over at most a fifth of it. As a rate may change, it is looked at again, each time
after a quarter of what is left, and the end moved with it; a decay that has begun goes on from where it is.
Validations, sample sheets and checkpoints keep their share too: every 500 of a recipe's 5000 steps is every tenth of
the run's.

The decision and the time used are in the checkpoints: a resumed run continues with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zoo.training.engine.settings import TrainSettings

WARM = 3  # steps of a sitting before the rate is measured
MEASURED = 0.02  # share of the time that the rate is first measured over
ENDING = 0.02  # share of the time kept for the last validation and checkpoint until one was seen
ASIDE = 0.1  # share of the time after which sample sheets, the slowest of what isn't training, wait
ENDLESS = 10**9  # steps, until their number is known


class Fitting:
    """Sets the steps of one run of `settings.seconds`; it reads no clock, but is given the seconds used so far."""

    def __init__(self, settings: TrainSettings) -> None:
        self.recipe = settings
        self.decided: dict[str, int] | None = None  # steps, warmup_steps, decay_steps
        self.ending = ENDING * settings.seconds  # seconds of what follows the last step
        self._last: dict[str, int] = {}  # the step at which each of validate_every, ... was last due
        self._aside = 0.0  # seconds that these took
        self._now = 0.0  # seconds used
        self._steps = 0  # of this sitting
        self._looks: list[tuple[int, float]] = []  # step and seconds of when it was looked at
        self._next = 0.0

    def begin(self) -> TrainSettings:
        """The settings that this sitting begins with."""
        return replace(self.recipe, **(self.decided or {"steps": ENDLESS, "decay_steps": 0}))

    def saw_ending(self, seconds: float) -> None:
        """Take note of how long a validation, sheet and checkpoint took together."""
        self.ending = max(self.ending, seconds)
        self._aside += seconds

    def due(self, name: str, step: int, steps: int) -> bool:
        """Whether step `step` of `steps` is one of `name` (validate_every, ...), by the recipe's share."""
        every = max(1.0, steps * getattr(self.recipe, name) / self.recipe.steps)
        if step - self._last.get(name, 0) < every or steps - step < every / 2:  # the last is at the end
            return False
        if name == "sheet_every" and self._aside > ASIDE * self._now:
            return False
        self._last[name] = step
        return True

    def after(self, step: int, seconds: float, settings: TrainSettings) -> TrainSettings:
        """The settings to go on with after `step` steps and `seconds` of all sittings."""
        self._steps += 1
        self._now = seconds
        if seconds >= self.recipe.seconds - self.ending:  # the time is used up, whatever was decided
            return self._decide(step, step, settings)
        if not self._looks:
            if self._steps >= WARM:
                self._looks, self._next = [(step, seconds)], seconds + MEASURED * self.recipe.seconds
            return settings
        # Over the last two looks: one alone may have fallen between validations, all are slow to see a change.
        begun, at = self._looks[-2:][0]
        done, took = step - begun, seconds - at
        if seconds < self._next or done == 0 or took <= 0.0:
            return settings
        left = self.recipe.seconds - self.ending - seconds
        self._looks.append((step, seconds))
        self._next = seconds + max(0.25 * left, 0.005 * self.recipe.seconds)
        return self._decide(step, step + int(left * done / took), settings)

    def _decide(self, step: int, steps: int, settings: TrainSettings) -> TrainSettings:
        steps = max(1, steps)
        before = self.decided
        decay = round(steps * min(1.0, self.recipe.decay_steps / self.recipe.steps))
        if before is not None and steps == step:  # it ends here: keep the decided schedule
            decay = before["decay_steps"]
        elif before is not None and 0 < before["steps"] - step <= before["decay_steps"]:  # decaying: no jump
            decay = round(before["decay_steps"] * (steps - step) / (before["steps"] - step))
        else:
            decay = min(decay, steps - step)
        warm_up = min(self.recipe.warmup_steps, steps // 5) if before is None else before["warmup_steps"]
        self.decided = {"steps": steps, "warmup_steps": warm_up, "decay_steps": max(decay, 0)}
        return replace(settings, **self.decided)

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "decided": self.decided, "ending": self.ending, "seconds": self.recipe.seconds, "last": self._last,
            "aside": self._aside,
        }  # fmt: skip

    def load_state(self, state: Mapping[str, Any], step: int, seconds: float) -> None:
        """Go on from a `state` at `step`, `seconds` used; the time is this run's, so that it can be given more."""
        self.decided = None if state["decided"] is None else {k: int(v) for k, v in state["decided"].items()}
        self.ending = float(state["ending"])
        self._last = {name: int(value) for name, value in (state.get("last") or {}).items()}
        self._aside, self._now = float(state.get("aside", 0.0)), seconds
        if self.recipe.seconds - self.ending <= seconds:  # no time is left
            self._decide(step, step, self.recipe)
        elif self.decided is not None and self.recipe.seconds > state.get("seconds", self.recipe.seconds):
            self.decided |= {"steps": ENDLESS, "decay_steps": 0}  # with more time it is decided anew
