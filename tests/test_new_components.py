"""Components under new names, in a plugin: counts, checks, differences and descriptions know them by what they say.

The plugin's sampler, schedule and grid are checked by being planned with, its guidance by what it declares. The last
imports torch at its top, which a check never notices; a sampler that does so makes a check slower, and not wrong.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from tests.config.test_incompatible import NET, pixels
from tests.conformance.installed import on_the_path, write_info
from tests.refusals import refused
from zoo.assemble import assemble
from zoo.bench.report.answer import _meaning
from zoo.cli.main import run
from zoo.config.check import Resolved, resolve
from zoo.config.published import measured_by
from zoo.evaluation.comparison import evaluate
from zoo.inspection import compare
from zoo.inspection.cost import cost_of
from zoo.schema.declared import DECLARED
from zoo.schema.errors import ConfigError, WeightsError
from zoo.schema.registry import KINDS, read_registry_file, registry, registry_file
from zoo.schema.signature import read_signature
from zoo.training.recipe import read_recipe

WALKING = '''
"""A sampler, a schedule and a grid."""
from dataclasses import dataclass

import numpy as np

from zoo.schema.errors import ConfigError
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
            raise ConfigError(f"squares come in odd numbers, not {steps}; use {steps + 1}", code="steps-unfit")
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
RANGES = '''
"""Which arguments can be."""
from zoo.schema.errors import ConfigError


def even(*, width: int, depth: int = 2) -> None:
    if width % 2 or depth < 1:
        raise ConfigError(
                f"width is {width} and depth {depth}; give an even width and a depth from 1 up",
                code="number-out-of-range",
            )
'''
HEAVY = '''
"""One of each kind whose code needs torch."""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from odd_parts import ranges
from zoo.autoencoders.identity import Identity
from zoo.conditioners.class_label import ClassLabel
from zoo.schema.declared import declares
from zoo.data.sines import Sines
from zoo.evaluation.extractors.random_network import RandomNetwork
from zoo.guidance.measurement import Downsampled
from zoo.diffusion.low_res import Plain
from zoo.diffusion.parameterization import V
from zoo.pipeline.safety import MeanBrightness
from zoo.acceleration.step_cache import DeepFeatures
from zoo.training.engine.loggers import TensorBoard
from zoo.training.objectives.denoising import Denoising


class Flat(nn.Module):
    """One convolution."""

    fits = "odd_parts.ranges:even"
    reads = ()

    def __init__(self, *, in_channels: int = 3, out_channels: int = 3, width: int = 4, depth: int = 2) -> None:
        super().__init__()
        ranges.even(width=width, depth=depth)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.layers = nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.Conv2d(width, out_channels, 1))

    def forward(self, x, time):
        return self.layers(x)


@declares(fits="odd_parts.ranges:even", reads=())
def build_flat(*, width: int = 4) -> nn.Module:
    """A network that is made by a function."""
    return Flat(width=width)


class Mirror(Identity):
    """The samples themselves, of pictures alone."""

    default = False
    pictures = True


class Kinds(ClassLabel):
    """Classes of its own."""


class Velocity(V):
    """v under another name."""


class Smaller(Downsampled):
    """Means of squares."""


class Enlarged(Plain):
    """A smaller picture without noise."""


class Kept(DeepFeatures):
    """A step cache."""

    calls = ("remember",)


class Waves(Sines):
    """Waves by another name."""


class Seeing(RandomNetwork):
    """An extractor that serves what nobody else does."""

    serves = ("texture",)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How much more spread the features are than the reference's."""

    layers: ClassVar[tuple[str, ...]] = ("pool",)
    paired: ClassVar[bool] = True
    of: ClassVar[str] = "texture"
    names_extractor: ClassVar[bool] = True
    fronts: ClassVar[tuple[str, ...]] = ("spread-of",)
    fits: ClassVar[str] = "odd_parts.ranges:even"
    meaning: ClassVar[str] = "how wide features lie"

    width: int = 2

    def __call__(self, generated, reference):
        return {f"spread-of[{generated.extractor}]@{generated.count}": float(np.std(generated.array()))}


class Bright(MeanBrightness):
    """Brightness by another name."""


class Book(TensorBoard):
    """TensorBoard's, under another name."""


class Learning(Denoising):
    """Denoising that also wants a conditioner."""

    needs = ("schedule", "parameterization", "conditioner")
'''
PEBBLES = '''
"""An invented family: folders that hold a pipeline's config in their index."""
import json


class Folder:
    key = "pebble"

    def __init__(self, index):
        self.index = index

    def config(self, answers):
        return self.index["config"]

    def card(self, part, answers, name):
        raise NotImplementedError


def pebbles(path):
    """Folders of pebbles."""
    index = json.loads((path / "model_index.json").read_text()) if path.is_dir() else {}
    return Folder(index) if index.get("_class_name") == "Pebbles" else None
'''
POINTS = {
    "network.flat": "odd_parts.heavy:Flat", "network.made-flat": "odd_parts.heavy:build_flat",
    "autoencoder.mirror": "odd_parts.heavy:Mirror", "conditioner.kinds": "odd_parts.heavy:Kinds",
    "parameterization.velocity": "odd_parts.heavy:Velocity", "measurement.smaller": "odd_parts.heavy:Smaller",
    "low_res.enlarged": "odd_parts.heavy:Enlarged", "step_cache.kept": "odd_parts.heavy:Kept",
    "dataset.waves": "odd_parts.heavy:Waves", "extractor.seeing": "odd_parts.heavy:Seeing",
    "metric.spread": "odd_parts.heavy:Spread", "safety.bright": "odd_parts.heavy:Bright",
    "objective.learning": "odd_parts.heavy:Learning", "logger.book": "odd_parts.heavy:Book",
    "sampler.halves": "odd_parts.walking:Halves", "schedule.line": "odd_parts.walking:Line",
    "grid.squares": "odd_parts.walking:Squares", "guidance.away": "odd_parts.guiding:Away",
    "sampler.heavy": "odd_parts.guiding:Heavy", "family.pebbles": "odd_parts.pebbles:pebbles",
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
    (package / "ranges.py").write_text(RANGES)
    (package / "heavy.py").write_text(HEAVY)
    (package / "pebbles.py").write_text(PEBBLES)
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
    for config, refusal in (
        (line(reading="eps"), "alpha-zero-undefined: 'line'"),
        (line(time="index"), "time-input-unfit: 'line'"),
        (line(time="sigma"), "alpha-zero-undefined: 'sigma'"),
        (
            line(sampler={"name": "ddim", "grid": "squares", "steps": 8}),
            "steps-unfit: 'squares'",
        ),
        (line(sampler={"name": "halves", "final": "first"}), "schedule-not-discrete: 'halves'"),
        (line(guidance=["away"]), "conditioner-missing: 'away'"),
        (
            line(guidance=["static-threshold", {"name": "away", "push": 1.0}]),
            "guidance-order-wrong: 'away'",
        ),
        (line(guidance=[{"name": "rescale", "space": "v"}]), "guidance-order-wrong"),
    ):
        with refused(refusal, ConfigError):
            zoo.check(config)
    twice = {"stages.0.guidance": ["away", {"name": "limited-interval", "guidance": "away"}]}
    with refused("guidance-repeated", naming="'away'"):
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


@pytest.mark.slow
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
    with refused("step-cache-unfit", naming="'deep-features'"):
        zoo.check(pixels(network=song, step_cache="deep-features"))
    zoo.check(pixels(network=NET, step_cache="deep-features"))


def flat(**changes):
    """Pixels by the plugin's network, autoencoder and parameterization."""
    network = {"name": "flat", **changes.pop("network", {})}
    return pixels("line", "velocity", network=network, autoencoder="mirror", time="t999", **changes)


def test_there_is_one_of_every_kind(capsys):
    assert {key.partition(".")[0] for key in POINTS} == set(KINDS)
    for key in POINTS:
        kind, _, name = key.partition(".")
        assert run(["list", kind, name]) == 0
        assert name in capsys.readouterr().out
        assert run(["describe", f"{kind}/{name}"]) == 0
        assert "plugin package 'odd-parts'" in capsys.readouterr().out


def test_a_family_reads_its_own_files(tmp_path):
    (tmp_path / "some").mkdir()
    index = {"_class_name": "Pebbles", "config": flat()}
    (tmp_path / "some" / "model_index.json").write_text(json.dumps(index))
    assert zoo.load(tmp_path / "some", steps=2)(seed=1, size=8).tensor.shape == (1, 3, 8, 8)
    (tmp_path / "some" / "model_index.json").write_text(json.dumps({**index, "_class_name": "Boulders"}))
    with refused("model-unread", WeightsError):
        zoo.load(tmp_path / "some")


def test_networks_and_what_stands_around_them_are_checked_and_drawn_with():
    for config in (flat(), flat(network={"width": 8}), {**flat(), "safety": {"name": "bright", "low": 0.0}}):
        zoo.check(config)
        drawn = zoo.build(config, overrides={"stages.0.sampler.steps": 2, "stages.0.size": 8})(seed=1)
        assert drawn.tensor.shape == (1, 3, 8, 8)
    for network in ("flat", "made-flat"):
        odd = pixels("line", "velocity", network={"name": network, "width": 3}, time="t999")
        with refused("number-out-of-range", ConfigError, naming=f"'{network}'"):
            zoo.check(odd)
        with refused("number-out-of-range", ConfigError, naming="width"):
            assemble(Resolved(config=odd, cards={}, plans=()))
    with refused("step-cache-unfit", naming="'kept'"):
        zoo.check(flat(step_cache="kept"))
    with refused("entries-repeated"):
        zoo.check({**flat(listens=["kind"]), "conditioners": {"kind": {"name": "kinds", "names": ["a", "a"]}}})
    smaller = [{"name": "posterior", "measurement": {"name": "smaller", "factor": 5}}]
    with refused("size-indivisible", ConfigError):
        zoo.check(flat(guidance=smaller))
    told = [d.text for d in compare(pixels(), {**flat()}).differences]
    assert any("flat" in text for text in told)
    assert any("mirror" in text for text in told)


def test_objectives_and_datasets_are_read_by_what_they_declare(tmp_path):
    path = tmp_path / "own.yaml"
    block = {
        "schema": "zoo.recipe/1", "name": "own", "data": {"name": "waves", "size": 16, "count": 4},
        "objective": {"name": "learning"}, "network": {"name": "flat", "in_channels": 1, "out_channels": 1},
        "schedule": "line", "parameterization": "velocity", "train": {"steps": 1, "batch_size": 1},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(block))
    with refused("recipe-block-missing", naming="'conditioner'"):
        read_recipe(path, registry())
    conditioner = {"name": "kinds", "names": ["a"]}
    path.write_text(yaml.safe_dump({**block, "conditioner": conditioner, "low_res": "enlarged"}))
    found = read_recipe(path, registry())
    assert found.trains == "network"
    assert found.reading["parameterization"] == {"name": "velocity"}
    assert found.reading["low_res"] == {"name": "enlarged"}
    path.write_text(
        yaml.safe_dump({**block, "conditioner": conditioner, "objective": {"name": "learning", "p2_k": 0.0}})
    )
    with refused("number-out-of-range", ConfigError, naming="'learning'"):
        read_recipe(path, registry())
    path.write_text(yaml.safe_dump({**block, "data": {"name": "waves", "size": 16, "count": 0}}))
    with refused("number-out-of-range", ConfigError, naming="'waves'"):
        read_recipe(path, registry())


def test_metrics_find_the_extractor_that_serves_them(tmp_path):
    for i in range(4):
        drawn = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(drawn).save(tmp_path / f"{i}.png")
    for metric in ("spread", "spread-seeing", {"name": "spread", "width": 4}):
        found = evaluate(tmp_path, tmp_path, metrics=[metric])
        (value,) = found.values
        assert value.metric == "spread"
        assert value.key.startswith("spread-of[random-0")
    with refused("number-out-of-range", ConfigError, naming="'spread'"):
        evaluate(tmp_path, tmp_path, metrics=[{"name": "spread", "width": 3}])
    assert measured_by("spread-of") == "spread"
    assert _meaning("spread-of") == "how wide features lie"
