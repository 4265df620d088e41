"""Parts of a call sum to the call, whatever runs inside of what."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.bench import profile
from zoo.bench.profile import APART, MEASURED, Profile
from zoo.diffusion.types import Condition
from zoo.pipeline.pipeline import Pipeline, Progress


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Text(nn.Module):
    """Takes 100 a call; nothing asked is a call of its own."""

    def __init__(self, clock):
        super().__init__()
        self.weight, self.clock = nn.Parameter(torch.zeros(1)), clock

    def forward(self, prompts):
        self.clock.now += 100.0
        return Condition(label=torch.zeros(len(prompts), dtype=torch.long))

    def null(self, batch):
        return self([""] * batch)


class Latents(nn.Module):
    """Decodes in 10."""

    def __init__(self, clock):
        super().__init__()
        self.weight, self.clock = nn.Parameter(torch.zeros(1)), clock

    def decode(self, latents):
        self.clock.now += 10.0
        return latents


class Piped:
    """Two stages, of two and of three steps that take 1 each, the first's pictures decoded by the second."""

    def __init__(self, clock, names=("base", "rest")):
        self.clock, self.names = clock, names
        stage = type("Stage", (), {})
        self.stages = [stage(), stage()]
        for one in self.stages:
            one.autoencoder = Latents(clock)
        self.conditioners = {"text": Text(clock)}

    def __call__(self, *, callback):
        x = torch.zeros(1)
        for number, steps in enumerate((2, 3)):
            self.conditioners["text"](["a"])
            self.conditioners["text"].null(1)
            if number:
                self.stages[0].autoencoder.decode(x)
            for step in range(steps):
                self.clock.now += 1.0
                callback(Progress(stage=self.names[number], step=step + 1, steps=steps, done=0, total=0, x_t=x, x0=x))
        self.stages[1].autoencoder.decode(x)
        self.clock.now += 0.5
        return x


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(profile, "perf_counter", made)
    return made


def test_every_second_of_a_call_is_one_parts(clock):
    kept = Profile("cpu")
    pipe = Piped(clock)
    for _ in range(3):
        began = clock.now
        kept.run(pipe)
        assert sum(kept.calls[-1].values()) == clock.now - began
    # A stage that is called as a part of its own is told apart from it.
    assert kept.record() == {
        "seconds": {"text": 400.0, "base": 2.0, "stage rest": 3.0, "decoding": 20.0, "rest": 0.5}, "calls": 3,
        "of": MEASURED, "reason": None,
    }  # fmt: skip


def test_a_call_leaves_the_pipeline_as_it_was(clock):
    pipe = Piped(clock)
    compiled = pipe.stages[0].autoencoder.decode
    pipe.stages[0].autoencoder.decode = compiled  # as the fast path sets it
    Profile("cpu").run(pipe)
    assert vars(pipe.stages[0].autoencoder)["decode"] is compiled
    assert "decode" not in vars(pipe.stages[1].autoencoder)
    assert not {"forward", "null"} & set(vars(pipe.conditioners["text"]))


def test_a_call_that_breaks_leaves_nothing(clock):
    pipe, kept = Piped(clock), Profile("cpu")
    pipe.stages[1].autoencoder.decode = None
    with pytest.raises(TypeError):
        kept.run(pipe)
    assert kept.calls == []
    assert kept.record()["reason"] == "no call of it was timed by part"
    assert not {"forward", "null"} & set(vars(pipe.conditioners["text"]))


def test_an_accelerator_is_waited_for_in_calls_of_their_own(monkeypatch, clock):
    monkeypatch.setattr(profile, "synchronise", lambda device: None)
    kept = Profile("cuda")
    kept.run(Piped(clock))
    assert kept.record()["of"] == APART


def test_a_picture_is_the_same_with_the_clock_and_without():
    pipe = zoo.build("class2img")
    assert isinstance(pipe, Pipeline)
    words = {"labels": ["flags"], "steps": 2, "seed": 3}
    assert torch.equal(Profile("cpu").run(pipe, **words).tensor, pipe(**words).tensor)
