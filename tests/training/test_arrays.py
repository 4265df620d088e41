"""From a recipe of signals to signals like those it learned from: their spectrum, their size, their units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import zoo
from tests.refusals import refused
from zoo.config.cards import read_card
from zoo.data.sines import Sines
from zoo.schema.registry import registry
from zoo.training.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes/signals"
TINY = {
    "data.size": 32, "data.count": 256, "data.low": 2.0, "data.high": 4.0, "network.width": 16, "network.mult": [1, 2],
    "network.attention_levels": [1], "train.steps": 70, "train.warmup_steps": 10, "train.decay_steps": 30,
    "train.average": 0.9, "train.learning_rate": 4e-3,
}  # fmt: skip


def inside(arrays, low, high):
    """The share of the power of signals (N, 1, L) at low to high cycles, one either side for the edges."""
    power = (np.abs(np.fft.rfft(arrays[:, 0])) ** 2).mean(axis=0)
    return power[int(low) - 1 : int(high) + 2].sum() / power.sum()


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    root = tmp_path_factory.mktemp("signals")
    return zoo.train(RECIPES / "sines-64.yaml", folder=root / "run", overrides=TINY).card


def pipeline(card):
    stage = {"name": "signal", "feeds": "array", "size": 32, "denoiser": {"weights": str(card)}}
    return {"schema": "zoo.pipeline/1", "stages": [{**stage, "sampler": {"name": "dpmpp-2m", "steps": 12}}]}


@pytest.mark.slow
def test_what_is_drawn_has_the_spectrum_and_the_size_of_what_was_learned(card):
    drawn = zoo.build(pipeline(card))(n=64, seed=3).numpy
    data = Sines(size=32, count=512, low=2.0, high=4.0).arrays()
    noise = np.random.default_rng(0).normal(size=drawn.shape)
    assert inside(noise, 2, 4) < 0.4  # the measure tells them apart
    assert inside(data, 2, 4) > 0.9
    assert inside(drawn, 2, 4) > 0.85
    peak = (np.abs(np.fft.rfft(drawn[:, 0])) ** 2).mean(axis=0).argmax()
    assert 2 <= peak <= 4
    assert abs(drawn.std() / data.std() - 1.0) < 0.2
    phases = np.angle(np.fft.rfft(drawn[:, 0])[:, 3])
    assert abs(np.exp(1j * phases).mean()) < 0.4  # and are not one signal again and again


@pytest.mark.slow
def test_the_card_says_the_shape_and_the_values(card):
    contract = read_card(str(card)).contract
    assert contract["size"] == [32]
    assert contract["values"] == [-1.0, 1.0]
    assert contract["in_channels"] == 1
    assert next((Path(card).parents[1]).rglob("*.png")).stat().st_size > 100  # the sheet


def small(tmp_path, data, **changes):
    """A recipe of two steps."""
    raw = yaml.safe_load((RECIPES / "volumes-8.yaml").read_text())
    raw["train"] |= {"steps": 2, "batch_size": 2, "warmup_steps": 1, "validate_every": 2, "sheet_every": 2}
    raw["network"] |= {"width": 8, "groups": 4}
    raw["objective"] |= {"sheet_steps": 2}
    raw |= {"data": data, **changes}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path / "recipe.yaml"


@pytest.mark.slow
def test_volumes_of_a_file_are_trained_on_and_come_back_in_its_units(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 1000, (12, 4, 4, 6))
    np.save(tmp_path / "volumes.npy", volumes)
    data = {"name": "array-file", "path": str(tmp_path / "volumes.npy"), "values": [0, 1000], "channels": False}
    made = zoo.train(small(tmp_path, data), folder=tmp_path / "run")
    assert made.validation["loss"] > 0.0
    written = pipeline(made.card)
    written["stages"][0]["size"] = [4, 4, 6]
    drawn = zoo.build(written)(n=2)
    assert drawn.arrays.shape == (2, 1, 4, 4, 6)
    assert drawn.values == (0.0, 1000.0)
    assert 200.0 < float(drawn.arrays.mean()) < 800.0


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"objective": {"name": "denoising", "loss": "vlb"}}, "bound-undefined"),
        ({"low_res": "plain", "objective": {"name": "denoising", "low_size": 2}}, "latents-unfit"),
        ({"autoencoder": {"weights": "emoji-kl-f4"}}, "array-part-unfit"),
    ],
)
def test_what_is_of_pictures_is_refused(changes, refusal, tmp_path):
    data = {"name": "sines", "size": [4, 4, 4], "count": 20, "low": 1.0, "high": 2.0}
    channels = {"network.out_channels": 2} if "loss" in changes.get("objective", {}) else {}
    with refused(refusal):
        zoo.train(small(tmp_path, data, **changes), folder=tmp_path / "run", overrides=channels)


def test_objectives_of_pictures_refuse_arrays(tmp_path):
    recipe = {
        "schema": "zoo.recipe/1", "name": "wrong", "data": {"name": "sines", "size": 32}, "objective": "autoencoder-kl",
        "autoencoder": {
            "name": "kl", "channels": 4, "z_channels": 4, "width": 8, "mult": [1, 2, 2], "blocks": 1, "groups": 4,
        },
        "train": {"steps": 1, "batch_size": 2},
    }  # fmt: skip
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(recipe))
    with refused("array-part-unfit"):
        zoo.train(tmp_path / "wrong.yaml", folder=tmp_path / "run")


@pytest.mark.parametrize("name", ["sines-64", "volumes-8"])
def test_the_recipes_are_sound(name):
    assert read_recipe(RECIPES / f"{name}.yaml", registry()).name == name
