"""From configs and cards to cascades, class labels and classifiers that run; and the command line on top."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import zoo
from tests.refusals import refused
from tests.tiny import TinyNet, randomise
from zoo.cli.main import run
from zoo.diffusion.low_res import GaussianAugmentation
from zoo.diffusion.types import Condition
from zoo.guidance.classifier import Classifier
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.registry import Entry, registry

NOISY = {"name": "gaussian", "schedule": "cosine", "resize": "bicubic"}
GROUPS = ["animals", "food", "flags"]


class TinyClassifier(torch.nn.Module):
    """Logits of three classes from the mean of each colour."""

    def __init__(self, *, classes: int = 3) -> None:
        super().__init__()
        self.out = torch.nn.Linear(3, classes)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(x).mean((2, 3)))


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    for name, target in (("tiny", "tests.tiny:TinyNet"), ("tiny-judge", f"{__name__}:TinyClassifier")):
        monkeypatch.setitem(registry()._entries, ("network", name), Entry("network", name, target, "tests"))


def card(folder, name, module, component, *, denoiser=None, config=None, **contract):
    """Random weights with their card; returns what a config writes for them."""
    file = folder / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, file)
    content = file.read_bytes()
    written = {
        "schema": "zoo.card/1", "kind": "network", "component": component, "summary": "Tiny.", "config": config or {},
        "contract": contract,
        "file": {"name": file.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
    }  # fmt: skip
    if denoiser is not None:
        written["denoiser"] = {"schedule": "cosine", "parameterization": "v", **denoiser}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(written))
    return {"weights": str(folder / f"{name}.yaml")}


def small(folder):
    net = {"in_channels": 3, "context_width": None, "classes": 3}
    return card(folder, "base", randomise(TinyNet(**net), 1), "tiny", denoiser={}, config=net, size=8, in_channels=3)


def large(folder):
    net = {"in_channels": 6, "context_width": None, "classes": 3}
    return card(
        folder, "up", randomise(TinyNet(**net), 2), "tiny", denoiser={"low_res": NOISY}, config=net,
        in_channels=6, out_channels=3, low_res=8, size=16,
    )  # fmt: skip


SAMPLER = {"name": "ddim", "steps": 2}


@pytest.fixture
def config(tmp_path):
    common = {"listens": ["label"], "sampler": SAMPLER, "autoencoder": "identity"}
    return {
        "schema": "zoo.pipeline/1", "summary": "Tiny.",
        "conditioners": {"label": {"name": "class-label", "names": GROUPS}},
        "stages": [
            {"name": "base", "size": 8, "feeds": "low_res", "denoiser": small(tmp_path), **common,
             "guidance": [{"name": "classifier-free", "scale": 2.0}, "dynamic-threshold"]},
            {"name": "up", "size": 16, "denoiser": large(tmp_path), "augmentation": 0.1, **common},
        ],
    }  # fmt: skip


def test_a_config_becomes_a_cascade_and_overrides_reach_its_stages(config):
    overrides = ["stages.1.augmentation=0.3", "stages.up.sampler.steps=4", "stages.0.guidance.1.percentile=0.9"]
    pipe = zoo.build(config, overrides=overrides)
    up = pipe.stages[1]
    assert isinstance(up.denoiser.low_res, GaussianAugmentation)
    assert (up.denoiser.low_res.resize, up.augmentation, up.small_size, up.sampler.steps) == ("bicubic", 0.3, 8, 4)
    assert pipe.stages[0].guidance[1].percentile == 0.9
    made = pipe(labels=["food", 2], n=2, seed=3)
    assert made.tensor.shape == (4, 3, 16, 16)
    assert [i["label"] for i in made.record["images"]] == ["food", "food", 2, 2]
    assert [s["evaluations"] for s in made.record["stages"]] == [2, 4]
    json.dumps(made.record)


def test_another_label_another_picture_and_no_label_is_the_null_class(config):
    pipe = zoo.build(config)
    food, flags, none = (pipe(labels=labels).samples for labels in ("food", "flags", None))
    assert torch.equal(food, pipe(labels=[1]).samples)
    assert not torch.allclose(food, flags, atol=1e-3)
    assert not torch.allclose(food, none, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"labels": ["fod"]}, "label-unknown: 'food'"),
        ({"labels": [3]}, "label-unknown"),
        ({"labels": []}, "label-invalid"),
        ({"prompts": "food"}, "prompts-unread"),
    ],
)
def test_wrong_labels_are_refused_before_any_network_runs(config, arguments, refusal, monkeypatch):
    pipe = zoo.build(config)
    monkeypatch.setattr(pipe.stages[0].denoiser.network, "forward", lambda *a, **k: pytest.fail("a network ran"))
    with refused(refusal, UsageError):
        pipe(**arguments)


def test_a_classifier_of_a_card_guides_in_a_pipeline(config, tmp_path):
    judge = card(tmp_path, "judge", randomise(TinyClassifier(), 3), "tiny-judge", classes=3)
    guidance = [{"name": "classifier", "scale": 40.0, "classifier": judge}]
    config["stages"][0]["guidance"] = guidance
    drawn = {}
    for sampler in ("ddim", "ddpm", "dpmpp-2m"):
        pipe = zoo.build(config, sampler=sampler)
        guide = pipe.stages[0].guidance[0]
        assert isinstance(guide, Classifier)
        assert guide.classifier in pipe.modules()
        drawn[sampler] = pipe(labels=[0, 1], stages=1).samples
        free = zoo.build(config, sampler=sampler, overrides=["stages.0.guidance.0.scale=0"])(labels=[0, 1], stages=1)
        assert not torch.allclose(drawn[sampler], free.samples, atol=1e-3)
        probability = torch.softmax(guide.classifier(drawn[sampler], torch.zeros(2)), 1)
        before = torch.softmax(guide.classifier(free.samples, torch.zeros(2)), 1)
        assert all(float(probability[i, i]) > float(before[i, i]) for i in range(2))
    assert "judge" in str(zoo.build(config).record["weights"])


def test_a_broken_classifier_file_is_seen_by_the_check(config, tmp_path):
    judge = card(tmp_path, "judge", randomise(TinyClassifier(), 3), "tiny-judge", classes=3)
    (tmp_path / "judge.safetensors").write_bytes(b"short")
    config["stages"][0]["guidance"] = [{"name": "classifier", "classifier": judge}]
    with pytest.raises(ValueError, match=r"'judge'.*has 5 bytes"):
        zoo.check(config)


def test_stages_that_do_not_fit_are_refused_by_name(config):
    with refused("low-res-size-unfit", naming="'base'"):
        zoo.check(config, ["stages.0.size=4"])
    with refused("augmentation-unread", ConfigError, naming="'base'"):
        zoo.check(config, ["stages.base.augmentation=0.1"])


def test_the_command_line_draws_classes_and_enlarges_pictures(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(json.dumps(config))
    words = ["generate", "--model", "mine.yaml", "--label", "food", "--label", "2", "-o", "out/", "--json"]
    assert run(words) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 2
    assert run(["generate", "--model", "mine.yaml", "--label", "fod"]) == 2
    assert "did you mean 'food'" in capsys.readouterr().err
    upscale = {**config, "stages": [{k: v for k, v in config["stages"][1].items() if k != "guidance"}]}
    (tmp_path / "up2x.yaml").write_text(json.dumps(upscale))
    Image.new("RGB", (8, 8), "red").save("red.png")
    assert run(["generate", "--model", "up2x.yaml", "--image", "red.png", "-o", "big.png"]) == 0
    assert Image.open("big.png").size == (16, 16)
    assert run(["generate", "--model", "up2x.yaml", "-o", "big.png"]) == 2
    assert "give an image" in capsys.readouterr().err


class Both:
    """Hears prompts where the pipeline also hears labels."""

    def __call__(self, prompts):
        return Condition(vector=torch.tensor([[float(len(p))] for p in prompts]))

    def null(self, batch):
        return self([""] * batch)


def test_prompts_and_labels_go_to_those_who_hear_them_and_a_negative_prompt_keeps_the_null_class(config, monkeypatch):
    pipe = zoo.build(config, overrides={"stages.0.listens": ["label"]})
    pipe.conditioners = {**pipe.conditioners, "text": Both()}
    pipe.stages[0] = replace(pipe.stages[0], listens=("label", "text"))
    seen = []
    network = pipe.stages[0].denoiser.network
    monkeypatch.setattr(network, "reads", ("label", "vector"), raising=False)
    forward = network.forward
    monkeypatch.setattr(
        network, "forward", lambda x, t, label, vector: seen.append((label, vector)) or forward(x, t, label=label)
    )
    pipe(["a", "bb"], labels="food", negative="ccc", stages=1)
    label, vector = seen[0]
    assert label.tolist() == [1, 1, 3, 3]
    assert vector[:, 0].tolist() == [1, 2, 3, 3]
    with refused("counts-differ", naming="3 labels for 2 prompts"):
        pipe(["a", "bb"], labels=[0, 1, 2])


SMALL_UNET = {
    "in_channels": 3, "out_channels": 3, "width": 8, "mult": [1, 2], "blocks": 1, "attention_levels": [1],
    "attention": "plain", "heads": 2, "context_width": None, "groups": 4, "classes": 3, "null_class": True,
}  # fmt: skip
ENLARGERS = {
    "unet": {**SMALL_UNET, "in_channels": 6, "level": True, "out_channels": 6},
    "efficient-unet": {
        "width": 8, "mult": [1, 2], "blocks": [1, 1], "attention_levels": [1], "head_width": 4, "classes": 3,
        "null_class": True, "groups": 4,
    },
}  # fmt: skip
JUDGE = {
    "classes": 3, "size": 8, "width": 8, "mult": [1, 2], "blocks": 1, "attention_levels": [1], "heads": 2, "groups": 4,
}  # fmt: skip


def fresh(name, arguments, seed):
    """The component of the registry with random weights."""
    return randomise(registry().load("network", name)(**arguments), seed)


@pytest.mark.slow
@pytest.mark.parametrize("enlarger", ENLARGERS)
def test_the_shipped_networks_make_a_cascade_with_classes_and_a_classifier(tmp_path, enlarger):
    """The one on U-Nets has a learned variance, which ancestral sampling uses."""
    arguments = ENLARGERS[enlarger]
    variance = {"variance": "learned_range"} if enlarger == "unet" else {}
    base = card(tmp_path, "base", fresh("unet", SMALL_UNET, 1), "unet", denoiser={}, config=SMALL_UNET, size=8)
    up = card(
        tmp_path, "up", fresh(enlarger, arguments, 2), enlarger, denoiser={"low_res": NOISY, **variance},
        config=arguments, low_res=8, size=16,
    )  # fmt: skip
    judge = card(tmp_path, "judge", fresh("classifier", JUDGE, 3), "classifier", config=JUDGE, schedule="cosine")
    common = {"listens": ["label"], "autoencoder": "identity", "sampler": {"name": "ddpm", "steps": 3}}
    guidance = [{"name": "classifier-free", "scale": 2.0}]
    pipe = zoo.build({
        "schema": "zoo.pipeline/1", "summary": "Tiny.",
        "conditioners": {"label": {"name": "class-label", "names": GROUPS}},
        "stages": [
            {"name": "base", "size": 8, "feeds": "low_res", "denoiser": base, **common,
             "guidance": [*guidance, {"name": "classifier", "scale": 5.0, "classifier": judge}]},
            {"name": "up", "size": 16, "denoiser": up, "augmentation": 0.1, "guidance": guidance, **common},
        ],
    })  # fmt: skip
    made = pipe(labels=["food", None], seed=1)
    assert made.tensor.shape == (2, 3, 16, 16)
    other = pipe(labels=["flags", None], seed=1).samples
    assert not torch.allclose(made.samples[0], other[0], atol=1e-3)
    torch.testing.assert_close(made.samples[1], other[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        pipe(labels=["food", None], seed=1, batch_size=1).samples, made.samples, atol=1e-4, rtol=0
    )
