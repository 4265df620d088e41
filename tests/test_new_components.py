"""Components under new names, in a plugin: counts, checks, differences and descriptions know them by what they say.

The plugin's sampler, schedule and grid are checked by being planned with, its guidance by what it declares. The last
imports torch at its top, which a check never notices; a sampler that does so makes a check slower, and not wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import zoo
from tests.config.test_incompatible import NET, pixels
from tests.conformance.installed import on_the_path, write_info
from zoo.cli.main import run
from zoo.comparison import compare
from zoo.comparison.cost import cost_of
from zoo.config.check import resolve
from zoo.config.declared import DECLARED
from zoo.config.signature import read_signature
from zoo.errors import ConfigError
from zoo.registry import read_registry_file, registry, registry_file

WALKING = '''
"""A sampler, a schedule and a grid."""
from dataclasses import dataclass

import numpy as np

from zoo.errors import ConfigError
from zoo.samplers.linear import LinearSampler, finite, level_at, towards


@dataclass(frozen=True, kw_only=True)
class Halves(LinearSampler):
    """Two of Euler's steps for one."""

    steps: int = 6

    def write(self, table, walk):
        for here, there in walk.strides:
            if finite(here, there):
                middle = level_at(walk.schedule, 0.5 * (here.ratio + there.ratio))
                table.add(here, middle, towards(table.look(here), middle))
                here = middle
            table.add(here, there, towards(table.look(here), there))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight path of its own."""

    @property
    def T(self):
        return None

    def __call__(self, t):
        t = np.asarray(t, dtype=np.float64)
        return 1.0 - t, t

    def t_from_log_snr(self, log_snr):
        return 1.0 / (1.0 + np.exp(0.5 * np.asarray(log_snr, dtype=np.float64)))


@dataclass(frozen=True, kw_only=True)
class Squares:
    """Squares of even nodes, an odd number of them."""

    def __call__(self, schedule, steps):
        if steps % 2 == 0:
            raise ConfigError(f"squares come in odd numbers, not {steps}; use {steps + 1}")
        return (np.arange(steps, 0, -1) / steps) ** 2
'''
GUIDING = '''
"""A guidance, and a sampler of torch's."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from zoo.guidance.classifier_free import ClassifierFree
from zoo.samplers.euler import Euler


@dataclass(frozen=True, kw_only=True)
class Away:
    """Away from nothing."""

    first = "which it forgets"
    once = "nothing is away from itself"
    compares = True
    needs = ("null",)
    neutral: ClassVar[Mapping[str, float]] = {"push": 1.0}
    call_scale = "push"
    push: float = 2.0

    def wrap(self, denoise, *, denoiser, cond, null, table):
        return ClassifierFree(scale=self.push).wrap(denoise, denoiser=denoiser, cond=cond, null=null, table=table)


class Heavy(Euler):
    """Euler's, in a module of torch."""
'''
POINTS = {
    "sampler.halves": "odd_parts.walking:Halves", "schedule.line": "odd_parts.walking:Line",
    "grid.squares": "odd_parts.walking:Squares", "guidance.away": "odd_parts.guiding:Away",
    "sampler.heavy": "odd_parts.guiding:Heavy",
}  # fmt: skip
LATENT = "latent-text2img"


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "site"
    package = site / "odd_parts"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "walking.py").write_text(WALKING)
    (package / "guiding.py").write_text(GUIDING)
    write_info(site, name="odd-parts", version="1.0", points=POINTS)
    with on_the_path(site, monkeypatch, "odd_parts"):
        yield


def line(**changes):
    return pixels("line", changes.pop("reading", "v"), time=changes.pop("time", "t999"), **changes)


def evaluations(config) -> list[int]:
    return [stage.evaluations for stage in cost_of(resolve(config), registry()).stages]


def test_they_are_counted(capsys):
    assert run(["check", LATENT, "--sampler", "halves", "--steps", "6"]) == 0
    assert re.search(r"\b11\b", capsys.readouterr().out)
    for steps, interval, count in ((6, [1.0, 0.0], 10), (5, [0.5, 0.0], 3), (1, [1.0, 0.0], 1)):
        assert evaluations(line(sampler={"name": "halves", "steps": steps}, interval=interval)) == [count]
    assert evaluations(line(sampler={"name": "ddim", "grid": "squares", "steps": 7})) == [7]
    inside = {"name": "repaint", "steps": 4, "sampler": "halves", "jump": 2, "resamples": 2}
    assert evaluations(line(sampler=inside)) == [10]
    assert evaluations(line(sampler="heavy")) == [50]


def test_what_cannot_work_is_refused_by_their_own_words():
    for config, said in (
        (line(reading="eps"), "gives eps, which says nothing .* at alpha = 0, where the schedule 'line' ends"),
        (line(time="index"), "the schedule 'line' is continuous"),
        (line(time="sigma"), "told t as 'sigma', which is infinite at alpha = 0"),
        (
            line(sampler={"name": "ddim", "grid": "squares", "steps": 8}),
            "'ddim' with grid 'squares' on .*'line' .*use 9",
        ),
        (line(sampler={"name": "halves", "final": "first"}), "'halves' on .*'line'.*final 'first'"),
        (line(guidance=["away"]), "'away' compares with and without a condition"),
        (
            line(guidance=["static-threshold", {"name": "away", "push": 1.0}]),
            "'away' stands after .*, which it forgets",
        ),
        (line(guidance=[{"name": "rescale", "space": "v"}]), "nothing to rescale.*autoguidance and away and class"),
    ):
        with pytest.raises(ConfigError, match=said):
            zoo.check(config)
    twice = {"stages.0.guidance": ["away", {"name": "limited-interval", "guidance": "away"}]}
    with pytest.raises(ConfigError, match=r"'away' twice .*nothing is away from itself"):
        zoo.check(LATENT, twice)
    zoo.check(LATENT, {"stages.0.guidance": ["away", {"name": "rescale", "space": "v"}]})


def test_differences_are_told():
    found = compare(LATENT, LATENT, sampler="halves", overrides={"stages.0.guidance": ["away"]}, guidance=3.0)
    told = [d.text for d in found.differences]
    assert "sampler ddim -> halves" in told
    assert "network evaluations 30 -> 59" in told
    assert "guidance away (push 2) added" in told
    told = [d.text for d in compare(pixels("linear"), line()).differences]
    assert "schedule linear -> line" in told
    assert any(text.startswith("alpha at t = 1 ") and text.endswith(" -> 0") for text in told)


def test_they_are_described(capsys):
    assert run(["describe", "guidance/away"]) == 0
    out = capsys.readouterr().out
    for words in ("push: float = 2.0", "compares: True", "once: nothing is away from itself", "call_scale: push"):
        assert words in out
    assert run(["list", "grid", "squares"]) == 0
    assert "Squares of even nodes" in capsys.readouterr().out


def test_a_call_sets_the_scale_that_a_guidance_declares():
    changes = {"stages.0.sampler.steps": 2}
    plain = zoo.build(LATENT, overrides=changes)("sun", seed=3, guidance=3.0)
    away = zoo.build(LATENT, overrides={**changes, "stages.0.guidance": ["away"]})
    assert torch.equal(away("sun", seed=3, guidance=3.0).tensor, plain.tensor)
    assert zoo.check(LATENT, {"stages.0.guidance": ["away"]})["stages"][0]["guidance"] == [{"name": "away"}]


def test_all_that_is_declared_has_a_meaning_in_the_documentation():
    page = (registry_file().parent / "docs" / "extending.md").read_text()
    rows = re.findall(r"^\| ([a-z_]+) \| `(\w+)` \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(kind, fact, text) for kind, facts in DECLARED.items() for fact, text in facts.items()]
    declared = {
        ("any" if fact in DECLARED["any"] else entry.kind, fact)
        for entry in read_registry_file(registry_file())
        for fact in read_signature(entry.target).constants
        if not fact.startswith("_")
    }
    assert declared == {(kind, fact) for kind, facts in DECLARED.items() for fact in facts}


def test_a_step_cache_is_held_against_the_methods_of_a_network():
    song = {"name": "song-unet", "resolution": 64, "in_channels": 3, "out_channels": 3}
    with pytest.raises(ConfigError, match=r"step_cache 'deep-features' cuts .*network 'song-unet'.* has no evaluate"):
        zoo.check(pixels(network=song, step_cache="deep-features"))
    zoo.check(pixels(network=NET, step_cache="deep-features"))
