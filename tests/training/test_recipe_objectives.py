"""Recipes of every objective train, resume bit for bit, and are refused where a block is missing or has no use."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

import zoo
from tests.refusals import refused
from zoo.schema.errors import ConfigError
from zoo.schema.registry import registry
from zoo.training.recipe import SLOTS, read_recipe

UNET = {
    "name": "unet", "in_channels": 3, "out_channels": 3, "width": 8, "mult": [1, 2], "blocks": 1,
    "attention_levels": [], "attention": "plain", "context_width": None, "heads": 1,
    "middle_attention": False, "groups": 4,
}  # fmt: skip
VQ = {"name": "vq", "channels": 3, "z_channels": 3, "codes": 16, "width": 8, "mult": [1, 2], "blocks": 1, "groups": 4}
LINEAR = {"name": "linear", "steps": 20, "beta_start": 0.005, "beta_end": 0.5}
BLOCKS = {
    "pixel-flow": {
        "objective": {"name": "denoising", "weighting": "simple", "times": "logit-normal", "sheet_steps": 1},
        "network": UNET, "schedule": "flow", "parameterization": "flow", "time_input": "t999",
    },
    "hybrid-importance": {
        "objective": {"name": "denoising", "loss": "hybrid", "times": "importance", "sheet_steps": 1},
        "network": {**UNET, "out_channels": 6}, "schedule": LINEAR, "parameterization": "eps",
    },
    "labelled-upscale": {
        "objective": {
            "name": "denoising", "labels": "group", "low_size": 8, "max_level": 0.5, "blur_probability": 0.5,
            "sheet_steps": 1,
        },
        "network": {**UNET, "in_channels": 6, "classes": 3, "null_class": True, "level": True},
        "schedule": "cosine", "parameterization": "v", "low_res": {"name": "gaussian", "schedule": "cosine"},
    },
    "classifier": {
        "objective": {"name": "classifier", "labels": "group"},
        "network": {
            "name": "classifier", "classes": 3, "size": 16, "width": 8, "mult": [1, 2], "blocks": 1,
            "attention_levels": [1], "heads": 1, "groups": 4,
        },
        "schedule": "cosine",
    },
    "vq-gan": {
        "objective": {
            "name": "autoencoder-vq", "adversary_weight": 0.5, "adversary_start": 1, "adversary_width": 4,
            "adversary_layers": 1,
        },
        "autoencoder": VQ,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("objectives")
    (root / "data").mkdir()
    rows = []
    for i, array in enumerate(np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(array).save(root / "data" / f"{i}.png")
        group, split = ("food", "animal", "sun")[i % 3], "val" if i > 8 else "train"
        rows.append(json.dumps({"file_name": f"{i}.png", "text": group, "group": group, "split": split}))
    (root / "data" / "metadata.jsonl").write_text("\n".join(rows))
    train = {
        "steps": 3, "batch_size": 4, "precision": "fp32", "save_every": 2, "validate_every": 3, "sheet_every": 3,
        "warmup_steps": 2,
    }  # fmt: skip
    for name, blocks in BLOCKS.items():
        data = {"name": "image-folder", "path": str(root / "data"), "size": 16}
        recipe = {"schema": "zoo.recipe/1", "name": name, "data": data, "train": train, **blocks}
        (root / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_a_run_of_every_objective_ends_in_weights_and_what_has_state_resumes_bit_for_bit(folder, tmp_path, name):
    whole = zoo.train(folder / f"{name}.yaml", folder=tmp_path / "whole")
    card = yaml.safe_load(whole.card.read_text())
    assert card["kind"] == ("autoencoder" if name == "vq-gan" else "network")
    if name == "hybrid-importance":
        assert card["contract"]["out_channels"] == 6
        assert card["denoiser"]["variance"] == "learned_range"
        assert card["metrics"]["validation_bits_per_dimension"] > 0
        assert (tmp_path / "whole/checkpoints/step-00000003/objective.safetensors").exists()
    if name == "labelled-upscale":
        assert (card["contract"]["low_res"], card["contract"]["in_channels"]) == (8, 6)
        assert card["denoiser"]["low_res"]["name"] == "gaussian"
        assert card["contract"]["names"] == ["animal", "food", "sun"]
    if name == "classifier":
        assert "denoiser" not in card
        assert card["contract"]["schedule"]["name"] == "cosine"
    zoo.load(str(whole.card))
    if name not in ("hybrid-importance", "vq-gan"):
        return

    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 2:
            raise Stopped

    with pytest.raises(Stopped):
        zoo.train(folder / f"{name}.yaml", folder=tmp_path / "run", callback=stop)
    made = zoo.train(folder / f"{name}.yaml", folder=tmp_path / "run", resume=True)
    weights = [c.with_suffix(".safetensors").read_bytes() for c in (whole.card, made.card)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("name", "overrides", "refusal"),
    [
        ("pixel-flow", {"objective.weightning": "simple"}, "argument-unknown: weighting"),
        ("pixel-flow", {"objective.times": "sometimes"}, "argument-type-wrong: importance"),
        ("pixel-flow", {"objective.blur_sigma": [0.1]}, "argument-type-wrong: blur_sigma"),
        ("pixel-flow", {"low_rez": "plain"}, "recipe-key-unknown: low_res"),
        ("pixel-flow", {"low_res": {"name": "gausian"}}, "component-unknown: gaussian"),
        ("vq-gan", {"schedule": "cosine"}, "recipe-block-unread: 'schedule'"),
        ("vq-gan", {"objective.adversary_wait": 1.0}, "argument-unknown: adversary_weight"),
        ("pixel-flow", {"objective": {"name": "classifer", "labels": "group"}}, "component-unknown: classifier"),
        (
            "pixel-flow",
            {"objective": {"name": "classifier", "labels": "group"}},
            "recipe-block-unread: 'parameterization'",
        ),
    ],
)
def test_wrong_recipes_are_refused_with_what_was_meant(folder, name, overrides, refusal):
    with refused(refusal, ConfigError):
        read_recipe(folder / f"{name}.yaml", registry(), overrides)


def test_a_denoiser_needs_its_schedule(folder, tmp_path):
    said = yaml.safe_load((folder / "pixel-flow.yaml").read_text())
    del said["schedule"]
    (tmp_path / "without.yaml").write_text(yaml.safe_dump(said))
    with refused("recipe-block-missing", naming="'schedule'"):
        read_recipe(tmp_path / "without.yaml", registry())


def test_every_shipped_objective_says_what_it_trains_and_reads():
    for name in registry().names("objective"):
        facts = registry().entry("objective", name).signature().constants
        assert facts["trains"] in SLOTS, name
        assert set(facts.get("needs", ())) <= set(facts["reads"]) <= set(SLOTS), name
