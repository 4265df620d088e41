"""Blocks of published values are made from records, and from nothing else."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import models, published
from zoo.config.cards import card_names, read_card
from zoo.config.presets import preset_names
from zoo.config.published import read_published
from zoo.evaluation.reproduction import Outcome


@pytest.fixture
def made(monkeypatch):
    """A record of one pipeline, of invented values."""

    def told(claims, **named):
        assert {c.pipeline for c in claims} == {"latent-text2img"}
        keys = {
            "hit-score": "hit-score[emoji-evaluator@cfa563d6,concepts=9,styles=2]@500",
            "fd": "fd[emoji-evaluator@cfa563d6]@500",
        }
        floor = {"fd-floor[emoji-evaluator@cfa563d6,n_ref=389]@500": 0.05}
        return [
            Outcome(
                pipeline=c.pipeline, published=c.published, verdict="differs", own=0.1234567, error=0.01,
                key=keys[c.published.metric], beside=floor if c.published.metric == "fd" else {},
            )
            for c in claims
        ]  # fmt: skip

    monkeypatch.setattr("zoo.evaluation.reproduction.measure", told)
    monkeypatch.setattr(published, "beside_hits", lambda data, n, size: {"real": 0.3, "guessing": 0.01})
    return published.measure("latent-text2img", "emoji.zip")


def test_every_shipped_pipeline_and_weight_has_a_protocol_or_draws_in_one_that_has():
    assert sorted(published.PIPELINES) == preset_names()
    assert set(published.WEIGHTS) <= set(card_names())


def test_what_ships_publishes_what_its_record_says():
    assert published.wrong() == []


def test_a_record_gives_a_block_that_is_read_and_shown(made, tmp_path):
    (tmp_path / f"{made['name']}.json").write_text(json.dumps(made))
    found = published.read("latent-text2img", tmp_path)
    assert found == made
    hits, distance = read_published(published.entries(found), "x")
    assert (hits.metric, hits.value, hits.n, hits.tolerance) == ("hit-score", 0.1235, 500, 0.01)
    assert (distance.value, distance.tolerance, distance.split) == (0.12346, 0.0012, published.SPLIT)
    assert distance.key == "fd[emoji-evaluator@cfa563d6]@500"
    page = models.pipelines(tmp_path)
    assert "| 500 | **0.12346** | 0.01 | real pictures 0.05 | 0.0012 |" in page
    assert page.count(models.NOT_MEASURED) == len(preset_names()) - 1
    assert "hit-score 0.1235 at N 500" in models.weights(tmp_path)


@pytest.mark.parametrize("where", ["weights", "config"])
def test_a_record_of_other_weights_or_another_config_is_none(made, tmp_path, where):
    if where == "weights":
        made["weights"]["emoji-kl-f4"] = "0" * 64
    else:
        made["settings"]["config_sha256"] = "0" * 64
    (tmp_path / f"{made['name']}.json").write_text(json.dumps(made))
    assert published.read("latent-text2img", tmp_path) is None
    assert published.entries(None) == []


def test_a_block_is_replaced_and_nothing_else_changes(made):
    text = published.with_block(published.file_of("latent-text2img").read_text(), [])
    block = published.entries(made)
    with_it = published.with_block(text, block)
    assert with_it.startswith(text)
    assert yaml.safe_load(with_it) == {**yaml.safe_load(text), "published": block}
    assert published.with_block(with_it, []) == text
    assert published.with_block(with_it, block) == with_it
    middle = text.replace("safety: null\n", "published:\n- {metric: fd}\n\n  # old\nsafety: null\n")
    assert published.with_block(middle, block) == with_it
    card = published.file_of("emoji-kl-f4").read_text()
    assert "metrics:" in published.with_block(card, [])


def test_enlarging_is_held_against_bicubic(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for i in range(4):
        small = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": "noise", "split": "train" if i == 3 else "test"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    found = published.beside_enlarged(str(tmp_path), 3, "upscale-2x")
    assert 35 < found["psnr"]["bicubic"] < 60  # it is what they were made by
    assert 0.95 < found["ssim"]["bicubic"] < 1.0


def test_a_value_that_could_not_be_measured_stops_the_command(monkeypatch):
    def told(claims, **named):
        return [Outcome(pipeline="x", published=c.published, verdict="unavailable", why="no file") for c in claims]

    monkeypatch.setattr("zoo.evaluation.reproduction.measure", told)
    with pytest.raises(SystemExit, match="emoji-kl-f4: no file"):
        published.measure("emoji-kl-f4", "emoji.zip")


@pytest.mark.parametrize(
    ("metric", "value", "n", "is_"),
    [("fd", 0.0612, 500, 0.00061), ("fd", 7.0, 500, 0.07), ("hit-score", 0.2, 500, 0.01), ("top1", 0.5, 250, 0.02),
     ("psnr", 30.0, 500, 0.05), ("ssim", 0.9, 500, 0.001)],
)  # fmt: skip
def test_tolerances_follow_the_rule(metric, value, n, is_):
    assert published.tolerance(metric, value, n) == pytest.approx(is_)


def test_cards_tell_every_sitting_of_their_training():
    said = models.weights(published.record.RESULTS)
    assert "8,976 steps, 170 s on NVIDIA H200; before that 5,600 steps, 5,143 s on cpu, 2 threads" in said
    for name in card_names():
        assert f"### {name}\n\n{read_card(name).summary}" in said
