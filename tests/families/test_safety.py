"""Stable Diffusion 1's safety checker in a folder gives diffusers' verdicts, and blacks out what diffusers does."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig

import zoo
from tests.families.test_variants import flipped
from tests.families.written import SAME, grey_levels, randomise, stable_diffusion
from tests.families.written_variants import VISION, images

pytestmark = [pytest.mark.peer, pytest.mark.slow]
PROMPT, STEPS, COUNT = "a red apple on a table", 3, 8
CALL = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "pt", "num_images_per_prompt": COUNT}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """diffusers' pipeline with a checker of random weights that refuses some images, and the folder it wrote."""
    vision = {**VISION, "hidden_act": "quick_gelu"}
    checker = randomise(StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=32)), 31)
    pipe = stable_diffusion()
    pipe.register_modules(safety_checker=checker, feature_extractor=images())
    # Thresholds among the cosines that images have, so that some images are above one.
    drawn = [*noisy(0), *pipe(PROMPT, latents=noise(5), **CALL).images]
    with torch.no_grad():
        given = torch.cat([prepared(pipe, image[None]) for image in drawn])
        embedded = F.normalize(checker.visual_projection(checker.vision_model(given).pooler_output))
        for name, spread in (("concept_embeds", torch.linspace(1.5, 3, 17)), ("special_care_embeds", torch.ones(3))):
            cosines = embedded @ F.normalize(getattr(checker, name)).T
            getattr(checker, f"{name}_weights").data = cosines.mean(dim=0) + spread * cosines.std(dim=0)
    place = tmp_path_factory.mktemp("checked")
    pipe.save_pretrained(place)
    return pipe, place


def noisy(seed):
    """Images of a few shapes, brightnesses and sizes of detail, in eight bits."""
    generator = torch.Generator().manual_seed(seed)
    for size in (32, 40, 28):
        for detail in (1, 4, 8):
            small = torch.rand(3, size // detail, size // detail + 1, generator=generator)
            image = F.interpolate(small[None], (size, size + 8))[0] * torch.rand(3, 1, 1, generator=generator)
            yield (image * 255).round() / 255


def prepared(pipe, batch):
    pictures = [Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()) for image in batch]
    return pipe.feature_extractor(pictures, return_tensors="pt").pixel_values


def noise(seed):
    return torch.randn(COUNT, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def drawn(pipe, latents):
    return pipe(PROMPT, n=COUNT, noise=latents, steps=STEPS, guidance=5.0)


def test_the_verdicts_are_diffusers_own_image_by_image(folder, tmp_path):
    pipe, place = folder
    batch = [image[None] for seed in range(8) for image in noisy(seed)]

    def verdicts(check):
        return [not check(image)[0].allowed for image in batch]

    theirs = [pipe.safety_checker(clip_input=prepared(pipe, image), images=image.clone())[1][0] for image in batch]
    check = zoo.load(place).safety
    assert verdicts(check) == theirs
    assert 0.1 < sum(theirs) / len(theirs) < 0.9
    for change in (
        act_flipped(place),
        {"vision_config": {**json_of(place)["vision_config"], "num_attention_heads": 4}},
    ):
        made = flipped(place, tmp_path, "safety_checker/config.json", change)
        assert verdicts(zoo.load(made).safety) != theirs
        shutil.rmtree(made)
    check.special_care_embeds_weights.data += 2.0  # none is near, so no threshold is lower
    assert verdicts(check) != theirs


def act_flipped(place):
    return {"vision_config": {**json_of(place)["vision_config"], "hidden_act": "gelu"}}


def json_of(place):
    return json.loads((place / "safety_checker" / "config.json").read_text())


def test_refused_images_are_black_and_the_record_says_why(folder):
    pipe, place = folder
    latents = noise(5)
    expected = pipe([PROMPT] * COUNT, latents=latents.clone(), **{**CALL, "num_images_per_prompt": 1})
    refused = expected.nsfw_content_detected
    assert True in refused
    assert False in refused
    made = drawn(zoo.load(place), latents)
    assert [not image["safety"]["allowed"] for image in made.record["images"]] == refused
    assert grey_levels(made.tensor, expected.images) <= SAME
    assert float(made.tensor[refused.index(True)].max()) == 0.0
    assert "near concept" in made.record["images"][refused.index(True)]["safety"]["reason"]
    assert any(name.endswith("#safety") for name in made.record["weights"])


def test_it_is_left_out_where_that_is_said_and_the_record_says_so(folder):
    place = folder[1]
    latents = noise(5)
    left_out = zoo.load(place, safety=False)
    assert left_out.safety is None
    made = drawn(left_out, latents)
    assert made.record["config"]["safety"] is None
    assert "without its safety checker" in made.record["config"]["summary"]
    assert "safety" not in made.record["images"][0]
    assert float(made.tensor.amax(dim=(1, 2, 3)).min()) > 0.0
    assert "without" not in zoo.load(place).record["config"]["summary"]
