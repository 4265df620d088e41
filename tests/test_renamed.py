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

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from tests.checkpoints.test_export import make
from tests.config.test_incompatible import BAD, GOOD
from zoo.bench.suite import read_suite
from zoo.cli.main import run
from zoo.config import cards, presets
from zoo.evaluation.published import claims
from zoo.families.diffusers.export import export_diffusers
from zoo.schema.errors import ZooError
from zoo.schema.registry import KINDS, Entry, Registry, read_registry_file, registry, registry_file
from zoo.schema.safe_yaml import read_mapping
from zoo.training.recipe import read_recipe

NEW = "qq-"  # in front of all, so that the order of names stays
RENAMED: set[str | None] = set()  # kinds of which a config, a card or a recipe had one
# Those that none of them names, and where they are tried.
ELSEWHERE = {
    "metric": "test_images_are_measured_the_same", "extractor": "test_images_are_measured_the_same",
    "family": "test_a_models_folder_is_read_the_same",
}  # fmt: skip
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
        RENAMED.update({kind} - {None})
        return NEW + value if kind is not None else value
    if not isinstance(value, Mapping):
        return value
    found = {}
    for key, item in value.items():
        if key == "name" and kind is not None:
            found[key] = NEW + item
        elif key == "data" and isinstance(item, Mapping) and "name" in item:  # of a recipe
            found[key] = rename(item, "dataset")
        elif key in ("conditioners", "stages"):  # by names of their own
            inner = {n: rename(b, "conditioner") for n, b in item.items()} if key == "conditioners" else rename(item)
            found[key] = inner
        else:
            of = "logger" if key == "loggers" else key  # of a recipe, which has several
            found[key] = rename(item, of if of in KINDS and isinstance(item, (str, Mapping, list)) else None)
    RENAMED.update({kind} if kind is not None and "name" in found else ())
    return found


def rename_card(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A card whose component and denoiser have the new names."""
    named = {key: rename(raw[key]) for key in ("config", "denoiser", "contract") if key in raw}
    return {**raw, **named, "component": NEW + raw["component"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shipped pipelines and cards, with the new names."""
    weights, pipelines = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("presets")
    for path in (*cards.FOLDER.glob("*.safetensors"), *cards.FOLDER.glob("*.json")):
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


@pytest.mark.slow
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
    ["--set", "stages.0.sampler.grid={name: karras, sigma_min: 0.001}", "--set", "safety=mean-brightness"],
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


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_checks_counts_and_costs_are_the_same(pipeline, folders, capsys):
    for change in CHANGES:
        for more in ([], ["--json"]):
            words = ["check", pipeline, *change, *more]
            before, after = both(folders, lambda new, w=words: printed(new_words(w) if new else w, capsys))
            assert before == after


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_differences_are_the_same(pipeline, folders, capsys):
    for change in [*CHANGES[1:], None]:
        second = [PIPELINES[0]] if change is None else change
        words = ["diff", pipeline, *second]
        before, after = both(folders, lambda new, w=words: printed(new_words(w) if new else w, capsys))
        assert before == after


@pytest.mark.slow
@pytest.mark.parametrize("config", [*(c for c, _ in BAD.values()), *GOOD.values()], ids=[*BAD, *GOOD])
def test_refusals_are_the_same(config, folders):
    def say(new: bool) -> str:
        try:
            return json.dumps(zoo.check(rename(config) if new else config), sort_keys=True)
        except ZooError as error:
            return str(error)

    before, after = both(folders, say)
    assert before == after


@pytest.mark.slow
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


RECIPES = sorted((Path(zoo.__file__).parents[1] / "recipes" / "emoji").glob("*.yaml"))


def renamed_recipe(raw: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """A recipe as it is and with the new names, under one file name."""
    paths = []
    for place, text in (("old", raw), ("new", rename(raw))):
        (folder / place).mkdir(exist_ok=True)
        paths.append(folder / place / "recipe.yaml")
        paths[-1].write_text(yaml.safe_dump(text, sort_keys=False))
    return paths[0], paths[1]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_checked_the_same(recipe, folders, tmp_path):
    raw = dict(read_mapping(recipe))
    slots = [key for key in ("schedule", "parameterization", "autoencoder", "conditioner", "low_res") if key in raw]
    loggers = {"loggers": ["tensorboard", {"name": "wandb", "project": "emoji"}]}
    for change in ({}, *({key: None} for key in slots), {"low_res": "plain"}, {"time_input": "sigma"}, loggers):
        changed = {**raw, **{k: v for k, v in change.items() if v is not None}}
        for key in [k for k, v in change.items() if v is None]:
            del changed[key]
        old, new = renamed_recipe(changed, tmp_path)

        def say(under_new: bool, old: Path = old, new: Path = new) -> str:
            try:
                found = read_recipe(new if under_new else old, registry())
            except ZooError as error:
                return str(error)
            return json.dumps([found.trains, found.tells_time, found.reading, found.raw], sort_keys=True, default=str)

        before, after = both(folders, say)
        assert before == after


def test_what_is_trained_is_the_same(folders, tmp_path):
    network = {
        "name": "unet", "in_channels": 1, "out_channels": 1, "width": 8, "mult": [1], "blocks": 1, "dims": 1,
        "attention": "plain", "attention_levels": [], "context_width": None, "heads": 2, "groups": 4,
    }  # fmt: skip
    raw = {
        "schema": "zoo.recipe/1", "name": "waves", "data": {"name": "sines", "size": 16, "count": 8},
        "objective": {"name": "denoising", "condition_dropout": 0.0}, "network": network, "schedule": "cosine",
        "parameterization": "v", "train": {"steps": 1, "batch_size": 2, "precision": "fp32", "save_every": 1},
    }  # fmt: skip
    paths = dict(zip((False, True), renamed_recipe(raw, tmp_path), strict=True))

    def say(under_new: bool) -> str:
        done = zoo.train(paths[under_new], folder=tmp_path / f"run {under_new}", device="cpu")
        card = read_mapping(done.card)
        kept = {k: v for k, v in card.items() if k not in ("provenance", "recipe")}
        return json.dumps(kept, sort_keys=True, default=str)

    before, after = both(folders, say)
    assert before == after


def test_a_bench_shows_the_same_rows(folders, tmp_path, capsys):
    plain_suite: dict[str, Any] = {
        "schema": "zoo.suite/1", "name": "both", "summary": "Two samplers.",
        "matrix": {"model": ["latent-text2img", "class2img"], "sampler": ["ddim", "heun"], "steps": [2, 5]},
    }  # fmt: skip
    paths = {}
    for under_new in (False, True):
        (tmp_path / str(under_new)).mkdir()
        paths[under_new] = tmp_path / str(under_new) / "both.yaml"
        matrix = {
            k: rename(v, "sampler") if k == "sampler" and under_new else v for k, v in plain_suite["matrix"].items()
        }
        paths[under_new].write_text(yaml.safe_dump({**plain_suite, "matrix": matrix}))

    def say(under_new: bool) -> str:
        rows = read_suite(paths[under_new]).rows
        return "\n".join(json.dumps([row.asked.name, row.config, row.reason], sort_keys=True) for row in rows)

    before, after = both(folders, say)
    assert len(before.splitlines()) == 8
    assert before.splitlines() == after.splitlines()


def test_images_are_measured_the_same(folders, tmp_path, capsys):
    sides = []
    for side in (0, 1):
        sides.append(tmp_path / f"side{side}")
        sides[-1].mkdir()
        for i in range(8):
            drawn = np.random.default_rng(10 * side + i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(drawn).save(sides[-1] / f"{i}.png")

    def say(under_new: bool) -> str:
        words = ["evaluate", *map(str, sides), "--extractor", f"{NEW if under_new else ''}random", "--json"]
        said = []
        for metrics in ([], ["--metrics", ",".join((NEW if under_new else "") + m for m in ("kid", "prdc", "fid"))]):
            assert run([*words, *metrics]) in (0, 1)
            found = json.loads(capsys.readouterr().out)
            said.append({k: v for k, v in found.items() if k not in ("seconds", "versions")})
        return json.dumps(said, sort_keys=True)

    before, after = both(folders, say)
    assert before == after


@pytest.mark.slow
def test_a_models_folder_is_read_the_same(folders, tmp_path, capsys):
    folder = export_diffusers(make(), tmp_path / "exported")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "model_index.json").write_text('{"_class_name": "OtherPipeline"}')
    # What a family calls its components is its own: their names stay, and so they are registered beside the new ones.
    kept = [entry for entry in read_registry_file(registry_file()) if entry.kind != "family"]
    known = Registry([*kept, *(entry for entry in other_names() if entry.kind == "family")])
    before, after = [], []
    for words in (["check", str(folder)], ["check", str(tmp_path / "strange")], ["explain", str(folder)]):
        before.append(printed(words, capsys))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Registry, "installed", classmethod(lambda cls: known))
            registry.cache_clear()
            after.append(plain(printed(words, capsys), folders))
        registry.cache_clear()
    assert before[0].startswith("0")
    assert before[1].startswith("1")
    assert before == after


def test_every_kind_is_tried():
    """A kind that is added to the registry is added to these tests."""
    for path in (*cards.FOLDER.glob("*.yaml"), *presets.FOLDER.glob("*.yaml"), *RECIPES):
        raw = read_mapping(path)
        RENAMED.update({raw["kind"]} if "kind" in raw else ())
        rename({key: value for key, value in raw.items() if key != "published"})
    for config in (*(c for c, _ in BAD.values()), *GOOD.values(), {"loggers": ["tensorboard"]}):
        rename(config)
    for change in CHANGES:
        new_words(change)
    missing = set(KINDS) - RENAMED - set(ELSEWHERE)
    assert not missing
    assert all(test in globals() for test in ELSEWHERE.values())


def test_published_values_are_of_the_same_metrics(folders):
    def say(_: bool) -> str:
        found = [
            (c.name, c.metric, c.extractor) for name in zoo.names("weights") + PIPELINES for c in published_of(name)
        ]
        return json.dumps(found, sort_keys=True)

    before, after = both(folders, say)
    assert before == after


def published_of(name: str) -> list[Any]:
    try:
        return claims(name)
    except ZooError:  # nothing is published of it
        return []
