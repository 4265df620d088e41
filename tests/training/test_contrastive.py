"""A CLIP that tells captions from all concepts, on distorted images, in a network of basic blocks."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from tests.refusals import refused
from tests.training.toy import Pictures
from zoo.conditioners.clip import build_clip
from zoo.networks.residual import ResidualTower
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import Batch
from zoo.training.objectives.concept_captions import Concepts
from zoo.training.objectives.contrastive import ClipContrastive

NETWORK = {
    "embed_dim": 16, "image_size": 24, "image_blocks": "basic", "image_width": [8, 12], "image_layers": [1, 2],
    "text_width": 16, "text_heads": 2, "text_layers": 1, "context_length": 16,
}  # fmt: skip
DISTORTION = {"rotation": 20, "mirror": 0.5, "colour": 0.5, "noise": 0.5, "cutout": 0.5, "shrink": 0.5, "shrink_to": 16}
OBJECTIVE = {"name": "clip-contrastive", "against": "concepts", "concepts_at_once": 8, "distortion": DISTORTION}
THINGS = ("apple", "boat", "cat", "drum", "egg", "fish")


def rows(count=24):
    return [
        {
            "file_name": f"{i}.png", "text": f"{THINGS[i % 6]}, {('flat', 'line')[i % 2]} style", "name": THINGS[i % 6],
            "concept": THINGS[i % 6], "keywords": [], "split": ("val" if i >= 20 else "test" if i >= 16 else "train"),
        }
        for i in range(count)
    ]  # fmt: skip


class Named(Pictures):
    """Random images whose rows have names and concepts."""

    def __init__(self, count=12):
        super().__init__(count=count, size=32)
        self.rows = rows(count)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("contrastive")
    (root / "data").mkdir()
    for row, array in zip(rows(), np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8), strict=True):
        Image.fromarray(array).save(root / "data" / row["file_name"])
    (root / "data" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows()))
    made = {
        "schema": "zoo.recipe/1", "name": "judge", "objective": {**OBJECTIVE, "ship": "extractor"}, "storage": "int8",
        "data": {"name": "image-folder", "path": str(root / "data"), "size": 32, "split": "train+test"},
        "network": {"name": "clip", **NETWORK},
        "train": {"steps": 4, "batch_size": 6, "precision": "fp32", "save_every": 2, "validate_every": 4, "seed": 1},
    }  # fmt: skip
    (root / "judge.yaml").write_text(yaml.safe_dump(made))
    return root / "judge.yaml"


@pytest.mark.slow
def test_a_run_resumes_to_the_same_weights_and_makes_an_extractor(recipe, tmp_path):
    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 3:
            raise Stopped

    whole = zoo.train(recipe, folder=tmp_path / "whole")
    with pytest.raises(Stopped):
        zoo.train(recipe, folder=tmp_path / "run", callback=stop)
    again = zoo.train(recipe, folder=tmp_path / "run", resume=True)
    assert whole.card.with_suffix(".safetensors").read_bytes() == again.card.with_suffix(".safetensors").read_bytes()
    clip = zoo.load(str(whole.card))
    assert clip.image_size == 24
    found = clip.images(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert found.shape == (2, 16)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    assert json.loads((tmp_path / "whole/run.json").read_text())


def objective(**named):
    torch.manual_seed(0)
    network = build_clip(**NETWORK)
    return ClipContrastive(network=network, train=Named(), validation=Named(), **named), network


def batch(**named):
    return Batch(rows=np.arange(6), samples=np.arange(6), seed=2, **named)


def test_a_loss_against_concepts_is_of_four_parts_and_validates_as_any_other():
    against, network = objective(against="concepts", distortion=DISTORTION)
    network.eval()
    found = against.loss(network, batch())
    assert {"loss", "accuracy", "concept_accuracy", "concept_loss", "style_loss"} == set(found)
    found["loss"].backward()
    assert network.visual.projection.weight.grad.abs().sum() > 0
    plain, _ = objective()
    with torch.no_grad():
        validated = [o.loss(network, batch(training=False))["loss"] for o in (against, plain)]
    assert torch.equal(*validated)


def test_the_concept_loss_is_that_of_the_right_concept():
    against, network = objective(against="concepts")
    network.eval()
    said = against.concepts.draw(batch())
    assert [against.concepts.concepts[i] for i in np.unique(against.concepts.of_rows[:6])] == list(THINGS)
    names = [THINGS[i] for i in range(6)]
    with torch.no_grad():
        found = against.loss(network, batch())
    assert float(found["concept_loss"]) > 0
    assert len(said.tokens) == 6
    assert [names[i] for i in said.own] == names


def test_other_styles_of_the_own_concept_are_told_apart_where_that_is_asked():
    found = {}
    for asked in (False, True):
        against, network = objective(against="concepts", other_styles=asked)
        network.eval()
        with torch.no_grad():
            found[asked] = against.loss(network, batch())
    said = against.concepts.draw(batch())
    assert (said.styles[said.own] != said.own_styles).any()
    assert found[True]["loss"] > found[False]["loss"]  # more to be told from
    assert torch.equal(found[True]["concept_loss"], found[False]["concept_loss"])


def test_concepts_are_drawn_by_address_with_the_batchs_own_and_every_style():
    many = [
        {"file_name": "x", "name": f"{THINGS[i % 6]} {i}", "concept": f"thing {i}", "text": f"{THINGS[i % 6]} {i}, {s}"}
        for i in range(40)
        for s in ("flat style", "line style", "3d style")
    ]
    concepts = Concepts(many, at_once=12, context_length=16)
    one = Batch(rows=np.array([0, 30, 60]), samples=np.array([5, 6, 7]), seed=0)
    said, again = concepts.draw(one), concepts.draw(one)
    assert torch.equal(said.tokens, again.tokens)
    assert said.tokens.shape == (12, 16)
    assert said.styles.bincount().tolist() == [4, 4, 4]
    assert said.own.tolist() == [0, 1, 2]
    assert said.own_styles.tolist() == [concepts.styles_of_rows[i] for i in (0, 30, 60)]
    other = concepts.draw(Batch(rows=one.rows, samples=one.samples + 3, seed=0))
    assert not torch.equal(said.tokens, other.tokens)
    means = said.style_means(torch.eye(12))
    assert torch.allclose(means.norm(dim=1), torch.ones(3), atol=1e-6)


def test_rows_without_concepts_and_too_few_at_once_are_refused():
    with refused("metadata-key-missing", ConfigError):
        Concepts(Pictures().rows, at_once=None, context_length=16)
    with refused("number-out-of-range", ConfigError):
        Concepts(rows(), at_once=1, context_length=16)
    with refused("choice-unknown", ConfigError, naming="concepts"):
        objective(against="everything")


def test_a_residual_tower_takes_any_size_and_refuses_what_cant_be_built():
    tower = ResidualTower(widths=(8, 12), layers=(1, 2), embed_dim=16, image_size=24).eval()
    assert tower(torch.zeros(2, 3, 24, 24)).shape == tower(torch.zeros(2, 3, 37, 37)).shape == (2, 16)
    for wrong in ({"widths": (8,)}, {"widths": (7, 12)}, {"layers": (0, 1)}):
        with refused("network-shape-invalid|number-out-of-range", ConfigError):
            ResidualTower(**{"widths": (8, 12), "layers": (1, 2), "embed_dim": 4, "image_size": 24, **wrong})
    with refused("width-indivisible"):
        build_clip(**{**NETWORK, "image_width": 8})
    with refused("width-indivisible"):
        build_clip(**{**NETWORK, "image_blocks": "bottleneck"})
