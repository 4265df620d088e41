"""Nobody knows a component by its name: under other names every verb gives the same answer, but for the names.

Each component of each kind is registered under another name and the old one taken away; pipelines and cards name the
new ones. What then differs stands outside of the components, in a list that speaks of them by name.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import zoo
from tests.config.test_incompatible import BAD, GOOD
from zoo.cli.main import run
from zoo.config import cards, presets
from zoo.config.safe_yaml import read_mapping
from zoo.errors import ZooError
from zoo.registry import KINDS, Entry, Registry, read_registry_file, registry, registry_file

NEW = "qq-"  # in front of all, so that the order of names stays
PIPELINES = presets.preset_names()


def other_names() -> Registry:
    """The components that come with zoo, each under another name."""
    entries = read_registry_file(registry_file())
    return Registry(Entry(e.kind, NEW + e.name, e.target, e.source) for e in entries)


def rename(value: Any, kind: str | None = None) -> Any:
    """A config, a card or a block of a kind with the components' new names."""
    if isinstance(value, list):
        return [rename(item, kind) for item in value]
    if isinstance(value, str):
        return NEW + value if kind is not None else value
    if not isinstance(value, Mapping):
        return value
    found = {}
    for key, item in value.items():
        if key == "name" and kind is not None:
            found[key] = NEW + item
        elif key in ("conditioners", "stages"):  # by names of their own
            inner = {n: rename(b, "conditioner") for n, b in item.items()} if key == "conditioners" else rename(item)
            found[key] = inner
        else:
            found[key] = rename(item, key if key in KINDS and isinstance(item, (str, Mapping, list)) else None)
    return found


def rename_card(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A card whose component and denoiser have the new names."""
    named = {key: rename(raw[key]) for key in ("config", "denoiser", "contract") if key in raw}
    return {**raw, **named, "component": NEW + raw["component"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shipped pipelines and cards, with the new names."""
    weights, pipelines = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("presets")
    for path in cards.FOLDER.glob("*.safetensors"):
        os.symlink(path, weights / path.name)
    for path in cards.FOLDER.glob("*.yaml"):
        (weights / path.name).write_text(yaml.safe_dump(rename_card(read_mapping(path)), sort_keys=False))
    for path in presets.FOLDER.glob("*.yaml"):
        (pipelines / path.name).write_text(yaml.safe_dump(rename(read_mapping(path)), sort_keys=False))
    return weights, pipelines


@contextlib.contextmanager
def renamed(folders: tuple[Path, Path]) -> Iterator[None]:
    """A process that knows the new names alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "installed", classmethod(lambda cls: other_names()))
        patch.setattr(cards, "FOLDER", folders[0])
        patch.setattr(presets, "FOLDER", folders[1])
        registry.cache_clear()
        try:
            yield
        finally:
            patch.undo()
            registry.cache_clear()


def plain(text: str, folders: tuple[Path, Path]) -> str:
    """What is printed, with the old names."""
    for new, old in zip(folders, (cards.FOLDER, presets.FOLDER), strict=True):
        text = text.replace(str(new), str(old))
    return text.replace(NEW, "")


def both(folders: tuple[Path, Path], say: Callable[[bool], str]) -> tuple[str, str]:
    """What is said under the old names and, told the new ones, under those."""
    before = say(False)
    assert NEW not in before
    with renamed(folders):
        after = say(True)
    return before, plain(after, folders)


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    code = run(arguments)
    out, err = capsys.readouterr()
    return f"{code}\n{out}\n{err}"


def test_all_are_renamed(folders):
    with renamed(folders):
        assert all(name.startswith(NEW) for kind in KINDS for name in registry().names(kind))
        assert zoo.names("pipeline") == PIPELINES


def test_lists_are_the_same(folders, capsys):
    for arguments in (["list"], ["list", "--json"], ["list", "sampler"], ["list", "weights", "emoji*"]):
        before, after = both(folders, lambda _, arguments=arguments: printed(arguments, capsys))
        assert before == after


def test_descriptions_are_the_same(folders):
    def say(new: bool) -> str:
        return "\n".join(json.dumps(zoo.describe(key).to_dict(), default=str) for key in zoo.names())

    before, after = both(folders, say)
    assert len(before.splitlines()) > 100
    assert before.splitlines() == after.splitlines()


CHANGES = (
    [], ["--sampler", "heun"], ["--sampler", "dpmpp-2s", "--steps", "5"], ["--steps", "100000"],
    ["--set", "stages.0.sampler={name: repaint, sampler: edm, steps: 20}"],
    ["--set", "stages.0.step_cache=deep-features"], ["--guidance", "1.5"],
    ["--set", "stages.0.sampler.grid={name: karras, sigma_min: 0.001}"],
)  # fmt: skip


def new_words(arguments: list[str]) -> list[str]:
    """Arguments of the command line with the new names."""
    found = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        key, _, value = word.partition("=")
        if before == "--sampler":
            word = NEW + word
        elif before == "--set":
            kind = key.rpartition(".")[2]
            word = f"{key}={yaml.safe_dump(rename(yaml.safe_load(value), kind), default_flow_style=True).strip()}"
            word = word.removesuffix("\n...")
        found.append(word)
    return found


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_checks_counts_and_costs_are_the_same(pipeline, folders, capsys):
    for change in CHANGES:
        for more in ([], ["--json"]):
            words = ["check", pipeline, *change, *more]
            before, after = both(folders, lambda new, w=words: printed(new_words(w) if new else w, capsys))
            assert before == after


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_differences_are_the_same(pipeline, folders, capsys):
    for change in [*CHANGES[1:], None]:
        second = [PIPELINES[0]] if change is None else change
        words = ["diff", pipeline, *second]
        before, after = both(folders, lambda new, w=words: printed(new_words(w) if new else w, capsys))
        assert before == after


@pytest.mark.parametrize("config", [*(c for c, _ in BAD.values()), *GOOD.values()], ids=[*BAD, *GOOD])
def test_refusals_are_the_same(config, folders):
    def say(new: bool) -> str:
        try:
            return json.dumps(zoo.check(rename(config) if new else config), sort_keys=True)
        except ZooError as error:
            return str(error)

    before, after = both(folders, say)
    assert before == after


@pytest.mark.parametrize(
    ("pipeline", "changes", "call"),
    [
        ("latent-text2img", {"stages.0.sampler.steps": 2}, {"prompts": "red apple", "guidance": 3.0}),
        ("class2img", {"stages.0.sampler.steps": 2}, {"labels": 1}),
        ("cascade-text2img", {"stages.0.sampler.steps": 1, "stages.1.sampler.steps": 1}, {"prompts": "sun"}),
    ],
)
def test_pictures_are_the_same(pipeline, changes, call, folders):
    def draw() -> tuple[torch.Tensor, str]:
        drawn = zoo.build(pipeline, overrides=changes)(**call, seed=5)
        record = {k: v for k, v in drawn.record.items() if k not in ("seconds", "config_sha256", "weights")}
        return drawn.tensor, json.dumps(record, sort_keys=True, default=str)

    images, record = draw()
    with renamed(folders):
        others, other_record = draw()
    assert torch.equal(images, others)
    assert record == plain(other_record, folders)
