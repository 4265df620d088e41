"""The form of `published:` in cards and presets."""

from __future__ import annotations

import json

import pytest

import zoo
from tests.refusals import refused
from zoo.config.cards import card_names, read_card
from zoo.config.presets import preset_names, presets_with, read_preset, weights_of
from zoo.config.published import Published, read_published

GOOD = {"metric": "precision", "value": 0.8, "n": 50000, "tolerance": 0.01, "source": "a paper, table 2"}


def test_an_entry_is_read_with_its_defaults():
    (found,) = read_published([GOOD], "card 'x'")
    assert found == Published(**GOOD)
    assert (found.measured_by, found.ranges, found.seed) == ("prdc", 1, 0)
    assert read_published([{**GOOD, "metric": "kid"}], "x")[0].measured_by == "kid"
    assert read_published(None, "x") == ()


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        ({**GOOD, "tolerence": 1}, "argument-unknown: 'tolerance'"),
        ({k: v for k, v in GOOD.items() if k != "n"}, "argument-missing: 'n'"),
        ({k: v for k, v in GOOD.items() if k != "source"}, "argument-missing: 'source'"),
        ({**GOOD, "n": 0}, "number-out-of-range: published.0.n"),
        ({**GOOD, "n": 1.5}, "argument-type-wrong"),
        ({**GOOD, "steps": True}, "argument-type-wrong"),
        ({**GOOD, "value": "good"}, "argument-type-wrong"),
        ({**GOOD, "value": float("nan")}, "argument-type-wrong"),
        ({**GOOD, "tolerance": -1}, "number-out-of-range: tolerance"),
        ({**GOOD, "sampler": 3}, "argument-type-wrong"),
        ({**GOOD, "settings": [1]}, "argument-type-wrong"),
        ("0.8", "published-invalid"),
    ],
)
def test_an_entry_that_nobody_could_be_held_against_is_refused(wrong, refusal):
    with refused(refusal) as told:
        read_published([wrong], "card 'x'")
    assert "card 'x': published.0" in str(told.value)
    with refused("published-invalid"):
        read_published(GOOD, "card 'x'")


def test_cards_and_presets_are_checked_for_it_and_built_without_it(tmp_path):
    config, _ = read_preset("latent-text2img")
    bare = {k: v for k, v in config.items() if k != "published"}
    assert zoo.check({**bare, "published": [GOOD]}) == zoo.check(bare)
    with refused("argument-missing", naming="'value'"):
        zoo.check({**bare, "published": [{"metric": "fd"}]})
    card = dict(read_card("emoji-latent-64").raw)
    (tmp_path / "mine.yaml").write_text(json.dumps({**card, "published": [GOOD]}))
    assert read_card(str(tmp_path / "mine.yaml")).published == (Published(**GOOD),)
    (tmp_path / "mine.yaml").write_text(json.dumps({**card, "published": [{"metric": "fd"}]}))
    with refused("argument-missing", naming="'value'"):
        read_card(str(tmp_path / "mine.yaml"))


def test_what_is_shipped_is_in_order():
    for name in card_names():
        assert all(isinstance(p, Published) for p in read_card(name).published)
    for name in preset_names():
        config, source = read_preset(name)
        read_published(config.get("published"), source)


def test_it_is_said_in_one_line():
    found = Published(**GOOD, steps=10, guidance=2.5)
    assert str(found) == "precision 0.8 at N 50000, tolerance 0.01, steps 10, guidance 2.5 (a paper, table 2)"


def test_describe_shows_what_a_pipeline_publishes_and_a_card_what_pipelines_reach_with_it(monkeypatch):
    from zoo.config import describe as module

    def read(name):
        config, source = read_preset(name)
        return {**config, "published": [GOOD] if name == "latent-text2img" else None}, source

    monkeypatch.setattr(module, "read_preset", read)
    assert "  published:\n    precision 0.8 at N 50000" in str(module.describe("latent-text2img"))
    assert "latent-text2img: precision 0.8 at N 50000" in str(module.describe("weights/emoji-kl-f4"))
    assert "pipelines: [latent-sr-text2img, latent-text2img]" in str(module.describe("weights/emoji-kl-f4"))


def test_weights_are_found_in_every_slot():
    config = {
        "conditioners": {"text": {"weights": "a"}, "label": "class-label"},
        "stages": [
            {"denoiser": {"weights": "b"}, "autoencoder": {"weights": "c"}, "guidance": "classifier-free"},
            {"denoiser": {"weights": "b"}, "guidance": [{"name": "classifier", "classifier": {"weights": "d"}}]},
        ],
    }
    assert weights_of(config) == ["a", "b", "c", "d"]
    within = [{"name": "limited-interval", "guidance": [{"name": "classifier", "classifier": {"weights": "e"}}]}]
    assert weights_of({"stages": [{"denoiser": {"weights": "a"}, "guidance": within}]}) == ["a", "e"]
    assert presets_with("emoji-latent-64") == ["latent-sr-text2img", "latent-text2img"]
    assert presets_with("emoji-evaluator") == []
