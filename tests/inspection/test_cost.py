"""What a pipeline costs is told before it runs, and is what then runs."""

from __future__ import annotations

import json

import pytest

from tests.refusals import refused
from zoo.assemble import weights
from zoo.cli.main import run
from zoo.config.cards import card_names, read_card
from zoo.config.check import resolve
from zoo.inspection.cost import cost_of, parameters_of
from zoo.schema.registry import registry

SMALL = [n for n in card_names() if read_card(n).bytes < 2**20]


@pytest.mark.parametrize("name", [*SMALL, "emoji-base-32-text"])
def test_the_parameters_of_a_file_are_those_that_are_loaded(name):
    card = read_card(name)
    module = weights(card)
    assert parameters_of(card) == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("sampler", "steps", "told"), [("ddim", 7, (7, True)), ("dpm-solver", 4, (7, True))])
def test_evaluations_are_those_of_the_plan_and_each_file_is_counted_once(sampler, steps, told):
    config = resolve("latent-text2img", None, {"sampler": sampler, "steps": steps})
    cost = cost_of(config, registry())
    assert [(s.evaluations, s.exact) for s in cost.stages] == [told]
    names = ("emoji-base-32-text", "emoji-latent-64", "emoji-kl-f4")
    assert cost.parameters == sum(parameters_of(read_card(n)) for n in names)
    assert cost.stages[0].parameters == parameters_of(read_card("emoji-latent-64"))
    assert cost.bytes_in(4) == 4 * cost.parameters


def test_a_step_cache_and_an_interval_are_told(capsys):
    cached = ["--set", "stages.0.step_cache={name: deep-features, every: 2}"]
    assert run(["check", "latent-text2img", "--steps", "10", *cached]) == 0
    told = capsys.readouterr().out
    assert "10, 5 of the whole network" in told
    assert "MB in float32" in told
    config = resolve("latent-text2img", {"stages.0.interval": [0.5, 0.0], "stages.0.takes": "noise"})
    assert cost_of(config, registry()).stages[0].evaluations == 15  # of 30


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", None])
def test_a_file_without_a_header_is_named(content, tmp_path):
    card = read_card(SMALL[0])
    path = tmp_path / card.path.name
    path.write_text(card.path.read_text())
    if content is None:
        text = json.dumps({"a": {"shape": "x"}}).encode()
        content = len(text).to_bytes(8, "little") + text
    (tmp_path / card.file.name).write_bytes(content)
    foreign = content == b"" or content[8:9] == b"["  # no file of this kind at all
    with refused("weights-format-unread" if foreign else "weights-header-damaged", naming=card.file.name):
        parameters_of(read_card(str(path)))
