"""Every pipeline that ships, drawn with its shipped weights: cascades, upscaling, classes, and out of nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torchvision.transforms.functional import to_tensor

import zoo
from zoo.config.cards import FOLDER, card_names, read_card
from zoo.config.presets import preset_names
from zoo.diffusion.types import source_of
from zoo.evaluation.metrics.reconstruction import psnr

LIMIT = 28 * 10**6  # bytes of all shipped weights
APPLES = ["red apple, 3d style", "red apple, firefox style"]


@pytest.fixture(scope="module")
def cascade():
    return zoo.build("cascade-text2img")


def disc(size: int, colour: tuple[int, int, int] = (220, 40, 40)) -> torch.Tensor:
    """A drawn picture (3, size, size) with edges, a thin line and a small hole, on white."""
    large = Image.new("RGB", (8 * size, 8 * size), "white")
    draw = ImageDraw.Draw(large)
    draw.ellipse((size, size, 7 * size, 7 * size), fill=colour, outline=(40, 40, 40), width=size // 4)
    draw.rectangle((3 * size, 3 * size, 4 * size, 4 * size), fill="white")
    draw.line((2 * size, 6 * size, 6 * size, 5 * size), fill=(30, 30, 30), width=size // 4)
    return to_tensor(large.resize((size, size), Image.Resampling.BOX))


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_pipeline_draws_and_says_with_what(name):
    pipe = zoo.build(name)
    asked: dict[str, Any] = {"n": 2}
    for conditioner in pipe.conditioners.values():
        asked = {"labels": ["food-drink", 3]} if source_of(conditioner) == "labels" else {"prompts": APPLES}
    if pipe.stages[0].enlarges:
        asked["image"] = disc(64)
    made = pipe(**asked, steps=3, seed=4)
    size = pipe.stages[-1].size
    assert made.tensor.shape == (2, 3, size, size)
    assert 0.0 <= float(made.tensor.min()) <= float(made.tensor.max()) <= 1.0
    assert float(made.tensor.std()) > 0.02
    used = {s["denoiser"]["weights"] for s in made.record["config"]["stages"]}
    assert used <= set(made.record["weights"])


def test_all_shipped_weights_fit_the_limit_and_every_file_has_its_card():
    assert sum(read_card(name).bytes for name in card_names()) <= LIMIT
    assert {p.stem for p in FOLDER.glob("*.safetensors")} == set(card_names())


@pytest.mark.slow
def test_the_cascade_draws_a_red_apple_on_white_at_128(cascade):
    for picture in cascade(APPLES, n=2, seed=0).tensor:
        assert picture.shape == (3, 128, 128)
        assert float(picture[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean()) > 0.9
        centre = picture[:, 40:96, 40:88].mean(dim=(1, 2))
        assert float(centre[0] - centre[1:].max()) > 0.2


@pytest.mark.slow
def test_the_stages_of_the_cascade_show_one_picture(cascade):
    whole = cascade(APPLES, seed=1).tensor
    small = cascade(APPLES, seed=1, stages=1).tensor
    assert small.shape[-1] == 32
    assert psnr(F.interpolate(whole, (32, 32), mode="area"), small) > 22.0


@pytest.mark.slow
def test_a_mixed_cascade_enlarges_what_the_latent_pipeline_draws():
    pipe, latent = zoo.build("latent-sr-text2img"), zoo.build("latent-text2img")
    small = latent(APPLES, seed=2).tensor
    torch.testing.assert_close(pipe(APPLES, seed=2, stages=1).tensor, small, atol=1e-5, rtol=0)
    assert psnr(F.interpolate(pipe(APPLES, seed=2).tensor, (64, 64), mode="area"), small) > 25.0


@pytest.mark.slow
def test_a_stage_is_exchanged_by_config(cascade):
    other = zoo.build("cascade-text2img", overrides={"stages.sr-128.sampler": {"name": "dpmpp-2m", "steps": 5}})
    ours, theirs = cascade(APPLES, seed=3), other(APPLES, seed=3)
    assert ours.record["config"]["stages"][:2] == theirs.record["config"]["stages"][:2]
    assert psnr(ours.tensor, theirs.tensor) > 28.0
    assert not torch.equal(ours.tensor, theirs.tensor)


def test_upscaling_is_a_decibel_better_than_bicubic():
    pipe = zoo.build("upscale-2x")
    truth = torch.stack([disc(128), disc(128, (40, 90, 220))])
    small = F.interpolate(truth, (64, 64), mode="area")
    bicubic = F.interpolate(small, (128, 128), mode="bicubic", align_corners=False).clamp(0, 1)
    assert psnr(pipe(n=2, image=small, seed=0).tensor, truth) > psnr(bicubic, truth) + 1.0


@pytest.mark.slow
def test_the_class_decides_the_picture_and_a_classifier_pushes_it_further():
    """Under the shipped noise-aware classifier, whose own gradient is what classifier guidance follows."""
    classifier = zoo.load("emoji-classifier-32")
    labels = ["activities", "food-drink", "smileys-emotion", "symbols", "people-body", "travel-places"] * 2
    clamp = {"name": "static-threshold"}
    towards = {"name": "classifier", "classifier": {"weights": "emoji-classifier-32"}, "scale": 4.0}

    def likelihood(*guidance: dict[str, Any]) -> tuple[float, float]:
        """Mean log p of the asked class, and of all classes."""
        pipe = zoo.build("class2img", overrides={"stages.0.guidance": [*guidance, clamp]})
        made = pipe(labels=labels, seed=5, steps=20)
        names = pipe.record["config"]["conditioners"]["label"]["names"]
        wanted = torch.tensor([names.index(label) for label in labels])
        with torch.inference_mode():
            said = classifier(made.tensor * 2 - 1, torch.zeros(len(labels))).log_softmax(dim=1)
        return float(said[torch.arange(len(labels)), wanted].mean()), float(said.mean())

    told, others = likelihood()
    assert told > others + 0.5
    assert likelihood(towards)[0] > told + 0.2
    assert likelihood({"name": "classifier-free", "scale": 2.5})[0] > told + 0.2
