"""Every number that a config, recipe, suite or request holds has a range: absurd ones are refused in a typed sentence.

The signatures of all components are walked, so an argument that is added without a range fails here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import zoo
from benchmarks.reliability.good import RECIPE, SUITE
from tests.test_arguments_fit import CLIP, SMALL
from zoo.bench.suite import read_suite
from zoo.conditioners.open_clip_models import facts
from zoo.config.blocks import check_block, make
from zoo.diffusion.schedules import CosineSchedule
from zoo.schema.errors import ZooError
from zoo.schema.registry import KINDS, registry
from zoo.schema.signature import Parameter, Signature, read_signature
from zoo.schema.values import fits
from zoo.training.engine.settings import TrainSettings
from zoo.training.recipe import GIVEN, _check_objective, read_recipe

ABSURD = (-(10**12), 10**12, -1e12, 1e12, math.inf, -math.inf, math.nan)
# What each needs besides, where its defaults aren't enough.
NEEDED: dict[tuple[str, str], dict[str, Any]] = {
    ("schedule", "tabulated"): {"table": [0.1, 0.2]}, ("schedule", "shifted-cosine"): {"size": 64},
    ("schedule", "zero-terminal-snr"): {"schedule": "linear"}, ("grid", "sections"): {"sections": [4]},
    ("grid", "table"): {"sigmas": [3.0, 1.0]},
    ("conditioner", "open-clip"): {"model": "ViT-B-32", "layer": 1, "file": None},
    ("guidance", "classifier"): {"classifier": {"weights": "emoji-classifier"}},
    ("guidance", "autoguidance"): {"denoiser": {"weights": "emoji-latent-64"}},
    ("guidance", "limited-interval"): {"guidance": "classifier-free"},
    ("guidance", "posterior"): {"measurement": "masked"}, ("guidance", "rescale"): {"space": "v"},
    ("dataset", "webdataset"): {"path": "a.tar", "size": 16}, ("dataset", "image-folder"): {"path": ".", "size": 16},
    ("extractor", "clip"): {k: v for k, v in CLIP.items() if k != "name"}, ("objective", "classifier"): {"labels": "a"},
}  # fmt: skip
# 64 bits, or no end on one side.
SEEDS = {"seed"}
ENDLESS = {("guidance", "limited-interval", "high")}


def numeric(signature: Signature) -> Iterator[Parameter]:
    """The parameters that may be a number, or hold some."""
    for parameter in signature.parameters:
        if any(fits(value, parameter) for value in (1, 1.0, [1], [1.0, 2.0])) and parameter.annotation is not None:
            words = parameter.annotation.replace("|", " ").replace("[", " ").replace("]", " ").replace(",", " ").split()
            if {"int", "float"} & set(words):
                yield parameter


def absurd_for(parameter: Parameter) -> list[Any]:
    """The absurd values of an argument's type, or in a list of it."""
    found = []
    for value in ABSURD:
        shapes = (value, [value], [value, value / 2 if isinstance(value, float) else value // 2])
        found += [shape for shape in shapes if fits(shape, parameter)][:1]
    return found


def block_of(kind: str, name: str) -> dict[str, Any]:
    small = next((block for block in SMALL.get(kind, ()) if block["name"] == name), {})
    return {"name": name, **small, **NEEDED.get((kind, name), {})}


def use(kind: str, block: dict[str, Any]) -> None:
    """Check a component, and make and plan with those that a check makes; a ZooError refuses it."""
    if kind == "objective":
        _check_objective(block, "recipe", registry())
        return
    check_block(block, kind=kind, where="here", registry=registry())
    if block["name"] == "open-clip":  # whose numbers are checked as its facts are looked up
        facts({key: value for key, value in block.items() if key != "name"})
    if kind not in ("schedule", "parameterization", "grid", "sampler", "step_cache") and block["name"] != "array-file":
        return
    made = make(kind, block, registry())
    schedule = CosineSchedule()
    if kind == "schedule":
        made(np.array([0.5, 1.0]))
    elif kind == "grid":
        made(schedule, 5)
    elif kind == "sampler":
        made.plan(schedule, None)


def arguments() -> Iterator[tuple[str, str, str]]:
    for kind in KINDS:
        for name in registry().names(kind):
            for parameter in numeric(registry().entry(kind, name).signature()):
                if not (kind == "objective" and parameter.name in GIVEN):
                    yield kind, name, parameter.name


def test_numbers_are_found():
    found = set(arguments())
    assert {("objective", "denoising", "sheet_steps"), ("network", "unet", "mult"), ("metric", "kid", "seed")} <= found
    assert len(found) > 150


@pytest.mark.parametrize(("kind", "name", "argument"), arguments())
def test_an_absurd_argument_of_any_component_is_refused(kind, name, argument, tmp_path):
    np.save(tmp_path / "waves.npy", np.zeros((4, 1, 16), dtype=np.float32))
    block = block_of(kind, name)
    if name == "array-file":
        block["path"] = str(tmp_path / "waves.npy")
    parameter = next(p for p in registry().entry(kind, name).signature().parameters if p.name == argument)
    use(kind, block)  # or it is refused for another reason
    for value in absurd_for(parameter):
        if argument in SEEDS and value == 10**12:
            continue
        if (kind, name, argument) in ENDLESS and value in (10**12, 1e12, math.inf):
            continue
        with pytest.raises(ZooError):
            use(kind, {**block, argument: value})


TRAIN = [p.name for p in numeric(read_signature("zoo.training.engine.settings:TrainSettings"))]


@pytest.mark.parametrize("name", TRAIN)
def test_an_absurd_number_of_training_is_refused(name):
    signature = read_signature("zoo.training.engine.settings:TrainSettings")
    parameter = next(p for p in signature.parameters if p.name == name)
    for value in absurd_for(parameter):
        if name in SEEDS and value == 10**12:
            continue
        with pytest.raises(ZooError):
            TrainSettings(**{"steps": 10, "batch_size": 4, name: value})


VARIANTS = [p.name for p in numeric(read_signature("zoo.data.variants:Variants"))]


@pytest.mark.parametrize("name", VARIANTS)
def test_an_absurd_number_of_variants_is_refused(name):
    from zoo.data.variants import Variants

    class Data:
        augments, rows, size, split = False, (), 8, None

    parameter = next(p for p in read_signature("zoo.data.variants:Variants").parameters if p.name == name)
    for value in absurd_for(parameter):
        if name in SEEDS and value == 10**12:
            continue
        with pytest.raises(ZooError):
            Variants(Data(), **{name: value})  # type: ignore[arg-type]


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a number stands in plain values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(inner, (int, float)) and not isinstance(inner, bool):
            yield (*before, key)
        yield from places(inner, (*before, key))


FULL_SUITE: dict[str, Any] = {
    **SUITE,
    "include": [{"model": "tiny", "batch": 1, "steps": 2, "size": 16}],
    "settings": {"seed": 0, "seconds": 1.0, "warmup": 1, "repeats": 2, "quality": {"samples": 4, "ranges": 2}},
}


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return copy


@pytest.mark.parametrize("kind", ["recipe", "suite"])
def test_an_absurd_number_anywhere_in_a_file_is_refused(kind, tmp_path: Path):
    whole: dict[str, Any] = RECIPE if kind == "recipe" else FULL_SUITE
    path = tmp_path / f"{kind}.yaml"

    def read(value: Any) -> None:
        path.write_text(yaml.safe_dump(value))
        if kind == "recipe":
            recipe = read_recipe(path, registry())
            TrainSettings(**recipe.raw["train"])
        else:
            read_suite(str(path))

    taken = []
    found = list(places(whole))
    assert len(found) > 5
    for place in found:
        for value in (-(10**12), 10**12, 1e300):
            if place[-1] in SEEDS and value == 10**12:
                continue
            try:
                read(changed(whole, place, value))
                taken.append((place, value))
            except ZooError:
                pass
    assert taken == []


@pytest.mark.parametrize("value", [True, 2.5, math.nan, 10**30, [1], np.array(3), np.arange(2), torch.ones(2), 1j])
@pytest.mark.parametrize("name", ["device", "dtype", "memory", "overrides"])
def test_a_build_refuses_what_is_no_device_dtype_or_mapping(name, value):
    with pytest.raises(ZooError):
        zoo.build("class2img", **{name: value})


@pytest.mark.parametrize("value", [2.5, b"a", [1], np.arange(2), object, "a\0", "\ud800"])
def test_paths_and_requests_of_another_type_are_refused(value, tmp_path):
    with pytest.raises(ZooError):
        zoo.train(value)
    with pytest.raises(ZooError):
        zoo.train(tmp_path / "none.yaml", folder=value)
    pipe = zoo.build("class2img", steps=1)
    with pytest.raises(ZooError):
        pipe.run(value)
