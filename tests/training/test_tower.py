"""A text tower that learns along with its denoiser, and a CLIP whose pictures' tower learns to meet it."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file

import zoo
from tests.refusals import refused
from tests.training.test_recipe import COLOURS, shop  # noqa: F401  the fixture
from zoo.conditioners.words import read_words
from zoo.config.cards import read_card
from zoo.schema.errors import ConfigError
from zoo.training.objectives.text_tower import trainable

SHAPES = ("disc", "square", "bar")
TUNE = {"objective.train_conditioner": True, "name": "toy-more"}


@pytest.fixture(scope="module")
def tuned(shop, tmp_path_factory):  # noqa: F811
    return zoo.train(shop / "latent.yaml", folder=tmp_path_factory.mktemp("tuned") / "run", overrides=TUNE)


@pytest.mark.slow
def test_a_compact_copy_reads_captions_as_its_original(shop):  # noqa: F811
    tower = zoo.load(str(shop / "runs/toy-clip/export/toy-clip.yaml"))
    ids = tower.tokenize(["red disc, flat style", "", "a zebra"])
    with torch.no_grad():
        ours, theirs = trainable(tower, []).states(ids), tower.states(ids)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
def test_the_tower_is_exported_with_a_card_and_conditions_the_weights_it_was_trained_with(shop, tuned):  # noqa: F811
    (text,) = tuned.others
    assert text.name == "toy-more-text.yaml"
    card = read_card(str(text))
    assert (card.kind, card.raw["provenance"]["steps"]) == ("conditioner", 6)
    before, after = zoo.load(str(shop / "runs/toy-clip/export/toy-clip.yaml")), zoo.load(str(text))
    old, new = before(["red disc, flat style"]).tokens, after(["red disc, flat style"]).tokens
    assert old.shape == new.shape
    assert (old - new).abs().max() > 1e-3
    assert after.known == before.known
    assert torch.equal(before.text_projection, after.text_projection)
    words = read_words(card.words)
    assert words.styles == ("flat", "line")
    assert {name.name for name in words.names} == {f"{c} {s}" for c in COLOURS for s in SHAPES} - {"green bar"}


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_tower(shop, tuned, tmp_path):  # noqa: F811
    zoo.train(shop / "latent.yaml", folder=tmp_path / "run", overrides={**TUNE, "train.steps": 4})
    again = zoo.train(shop / "latent.yaml", folder=tmp_path / "run", overrides=TUNE, resume=True)
    for ours, theirs in zip((again.card, *again.others), (tuned.card, *tuned.others), strict=True):
        ours, theirs = ours.with_suffix(".safetensors"), theirs.with_suffix(".safetensors")
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_a_clip_takes_a_tower_over_and_leaves_its_token_states(shop, tuned, tmp_path):  # noqa: F811
    made = zoo.train(
        shop / "clip.yaml", folder=tmp_path / "run", overrides={"conditioner.weights": str(tuned.others[0])}
    )
    clip, tower = (load_file(p.with_suffix(".safetensors")) for p in (made.card, tuned.others[0]))
    changed = {k for k in tower if not torch.equal(clip[k], tower[k])}
    assert changed == {"text_projection"}
    start = load_file(shop / "runs/toy-clip/export/toy-clip.safetensors")
    assert any(not torch.equal(start[k], clip[k]) for k in clip if k.startswith("visual."))


@pytest.mark.slow
def test_a_tower_that_cannot_learn_or_does_not_fit_is_refused(shop, tuned, tmp_path):  # noqa: F811
    overrides = {"conditioner.weights": str(tuned.others[0]), "network.text_width": 8}
    with refused("tensors-unfit", ConfigError):
        zoo.train(shop / "clip.yaml", folder=tmp_path / "a", overrides=overrides)
    unheard = yaml.safe_load((shop / "latent.yaml").read_text())
    del unheard["conditioner"]
    unheard["objective"]["train_conditioner"] = True
    unheard["network"] |= {"attention": "plain", "context_width": None}
    (tmp_path / "unheard.yaml").write_text(yaml.safe_dump(unheard))
    with refused("conditioner-missing"):
        zoo.train(tmp_path / "unheard.yaml", folder=tmp_path / "b")


def test_a_clip_goes_on_from_its_own_weights(shop, tmp_path):  # noqa: F811
    card = shop / "runs/toy-clip/export/toy-clip.yaml"
    overrides = {"init_from": str(card), "train.steps": 1, "train.learning_rate": 0.0}
    made = zoo.train(shop / "clip.yaml", folder=tmp_path / "run", overrides=overrides)
    ours, theirs = (load_file(p.with_suffix(".safetensors")) for p in (made.card, card))
    assert ours.keys() == theirs.keys()
    weights = [k for k in theirs if "running" not in k and "num_batches" not in k]
    assert all(torch.allclose(ours[k].float(), theirs[k].float(), atol=2e-3) for k in weights)
