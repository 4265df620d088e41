"""What a check read goes along to the build: each file is read once, and the plans are those that run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch

import zoo
from zoo.bench.pipelines import Builder
from zoo.bench.rows import Settings
from zoo.bench.suite import read_suite
from zoo.cli.main import run
from zoo.config import check
from zoo.config.cards import FOLDER, read_card
from zoo.config.check import resolve
from zoo.config.presets import weights_of
from zoo.evaluation.inputs.sources import Drawing
from zoo.schema import safe_yaml
from zoo.schema.registry import registry

CASCADE = "cascade-text2img"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each YAML file is read, by its name."""
    registry()  # its file is read once a process
    counted: Counter[str] = Counter()
    real = safe_yaml.read_yaml

    def counting(path: Path | str) -> object:
        counted[Path(path).name] += 1
        return real(path)

    monkeypatch.setattr(safe_yaml, "read_yaml", counting)
    return counted


def files() -> list[str]:
    """Those that the cascade is written in."""
    return [f"{name}.yaml" for name in (CASCADE, *weights_of(zoo.check(CASCADE)))]


@pytest.mark.parametrize("verb", [zoo.check, zoo.build])
def test_each_file_is_read_once(verb, read):
    expected = files()
    read.clear()
    verb(CASCADE, steps=2)
    assert dict(read) == dict.fromkeys(expected, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["check", CASCADE, "--steps", "2"],
        ["generate", "sun", "--model", CASCADE, "--steps", "1", "-o", "a.png"],
        ["diff", CASCADE, "--steps", "7"],
    ],
    ids=lambda words: words[0],
)
def test_each_file_is_read_once_by_a_command(words, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = files()
    read.clear()
    assert run(words) == 0
    sides = 2 if words[0] == "diff" else 1
    assert dict(read) == dict.fromkeys(expected, sides)


def test_what_is_resolved_holds_cards_and_plans():
    resolved = resolve(CASCADE, None, {"steps": 5})
    assert resolved.config == zoo.check(CASCADE, steps=5)
    assert {name: card.sha256 for name, card in resolved.cards.items()} == {
        name: read_card(name).sha256 for name in weights_of(resolved.config)
    }
    pipe = zoo.build(resolved)
    assert [plan.evaluations for plan in resolved.plans] == [s["evaluations"] for s in pipe("sun").record["stages"]]
    assert pipe.record["weights"] == {name: card.sha256 for name, card in resolved.cards.items()}


def test_what_is_resolved_is_resolved_again_only_for_a_change(read):
    resolved = resolve(CASCADE)
    read.clear()
    assert resolve(resolved, None, {"steps": None}) is resolved
    assert not read
    assert len(resolve(resolved, None, {"steps": 3}).plans[0]) == 3
    assert (
        zoo.build(resolved, overrides={"stages.0.sampler.steps": 4})
        .stages[0]
        .sampler.plan(zoo.load("emoji-base-32").schedule)
        .evaluations
        == 4
    )


def test_building_reads_no_card_but_those_that_were_checked(read):
    resolved = resolve(CASCADE)
    name = next(iter(resolved.cards))
    card = dataclasses.replace(resolved.cards[name], raw={**resolved.cards[name].raw, "file": {"name": "none"}})
    read.clear()
    with pytest.raises(KeyError):  # the file block says no size: it is the card given that is asked
        zoo.build(dataclasses.replace(resolved, cards={**resolved.cards, name: card}))
    assert not read
    assert (FOLDER / f"{name}.yaml").is_file()


def test_what_is_measured_is_resolved_once(monkeypatch):
    """A suite is read twice and its rows are built; an evaluation asks for a size and then draws."""
    checked = []
    original = check.check_preset
    monkeypatch.setattr(check, "check_preset", lambda *given: checked.append(given) or original(*given))
    suite = {"schema": "zoo.suite/1", "matrix": {"model": "pixel-ddpm-32", "steps": 2, "batch": [1, 2]}}
    known = {}
    for _ in range(2):
        rows = read_suite(suite, known=known).rows
    assert [row.config for row in rows] == [known_one.config for known_one in known.values()] * 2
    assert Builder(Settings(), counting=False).build(rows[0]).pipe.stages[0].sampler.steps == 2
    assert len(checked) == 1
    drawing = Drawing(
        seed=0, overrides=None, sampler=None, steps=2, guidance=None, batch_size=None, device=torch.device("cpu"),
        dtype=None,
    )  # fmt: skip
    assert drawing.size("pixel-ddpm-32") == 32
    assert drawing.draw("pixel-ddpm-32", None, None, 4, 1).count == 4
    assert len(checked) == 2
