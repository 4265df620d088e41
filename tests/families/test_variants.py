"""SDXL with its refiner, Stable Diffusion 2, inpainting: zoo draws what diffusers draws, far within one grey level."""

import json
import shutil

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

import zoo
from tests.families.test_stable_diffusion import NEGATIVE, NOISE, SIDE, STEPS, hole, picture
from tests.families.written import SAME, grey_levels, stable_diffusion, stable_diffusion_xl
from tests.refusals import refused
from zoo.schema.errors import ConfigError, UsageError

pytestmark = [pytest.mark.peer, pytest.mark.slow]
# Without an exclamation mark: a tokenizer that pads with "!" reads every one of a prompt as padding; open_clip doesn't.
PROMPT, SCALE = "a red apple on a table, 3d style", 5.0
CALL = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "pt"}
REFINER = {"cross_attention_dim": 128, "projection_class_embeddings_input_dim": 64 + 5 * 256}
SD2 = {
    "unet": {"use_linear_projection": True, "attention_head_dim": (1, 2)}, "text": {"hidden_act": "gelu"}, "pad": "!",
}  # fmt: skip


def drawn(pipe, negative=NEGATIVE, **more):
    return pipe(PROMPT, negative=negative, noise=NOISE, steps=STEPS, guidance=SCALE, **more).tensor


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    pipe, place = stable_diffusion_xl(), tmp_path_factory.mktemp("base")
    pipe.save_pretrained(place)
    return pipe, place


@pytest.fixture(scope="module")
def refiner(tmp_path_factory):
    pipe = stable_diffusion_xl(
        first=False, kind=StableDiffusionXLImg2ImgPipeline, unet=REFINER, zeros=False, requires_aesthetics_score=True
    )
    place = tmp_path_factory.mktemp("refiner")
    pipe.save_pretrained(place)
    return pipe, place


def flipped(place, tmp_path, file, change):
    made = tmp_path / "flipped"
    shutil.copytree(place, made)
    path = made / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return made


@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_sdxls_base_is_diffusers_own(base, negative):
    pipe, place = base
    expected = pipe(PROMPT, negative_prompt=negative, latents=NOISE.clone(), **CALL).images
    assert expected.std() > 0.05
    assert grey_levels(drawn(zoo.load(place), negative), expected) <= SAME


XL_FLIPPED = {
    "zeros for no prompt": ("model_index.json", {"force_zeros_for_empty_prompt": False}),
    "first padding": ("tokenizer/tokenizer_config.json", {"pad_token": "!"}),
    "second padding": ("tokenizer_2/tokenizer_config.json", {"pad_token": "<|endoftext|>"}),
    "second activation": ("text_encoder_2/config.json", {"hidden_act": "quick_gelu"}),
    "latent scale": ("vae/config.json", {"scaling_factor": 0.2}),
    "heads": ("unet/config.json", {"attention_head_dim": [2, 4]}),
}


@pytest.mark.parametrize("name", XL_FLIPPED)
def test_one_switch_of_sdxl_flipped_is_another_picture(base, name, tmp_path):
    pipe, place = base
    expected = pipe(PROMPT, latents=NOISE.clone(), **CALL).images
    assert grey_levels(drawn(zoo.load(flipped(place, tmp_path, *XL_FLIPPED[name])), None), expected) > SAME


def test_sdxls_sizes_and_crops_are_numbers_of_the_request(base):
    pipe, place = base
    sizes = {"original_size": (64, 48), "crops_coords_top_left": (8, 4), "target_size": (40, 36)}
    expected = pipe(PROMPT, negative_prompt=NEGATIVE, latents=NOISE.clone(), **sizes, **CALL).images
    fixed = {
        "original_height": 64, "original_width": 48, "crop_top": 8, "crop_left": 4, "target_height": 40,
        "target_width": 36,
    }  # fmt: skip
    assert grey_levels(drawn(zoo.build(place, overrides={"conditioners.sizes.fixed": fixed})), expected) <= SAME
    assert grey_levels(drawn(zoo.load(place)), expected) > SAME
    swapped = {**fixed, "crop_top": 4, "crop_left": 8}
    assert grey_levels(drawn(zoo.build(place, overrides={"conditioners.sizes.fixed": swapped})), expected) > SAME


@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_sdxls_refiner_is_a_second_stage_over_the_last_part_of_t(base, refiner, negative):
    first, second = base[0], refiner[0]
    call = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "negative_prompt": negative}
    latents = first(PROMPT, latents=NOISE.clone(), denoising_end=0.4, output_type="latent", **call).images
    expected = second(PROMPT, image=latents, denoising_start=0.4, output_type="pt", **call).images
    assert [stage.interval for stage in zoo.load(base[1], refiner=refiner[1]).stages] == [(1.0, 0.2), (0.2, 0.0)]
    both = zoo.load(base[1], refiner=refiner[1], switch=0.6)
    assert grey_levels(drawn(both, negative), expected) <= SAME
    assert grey_levels(drawn(zoo.load(base[1]), negative), expected) > SAME
    assert grey_levels(drawn(zoo.load(base[1], refiner=refiner[1], switch=0.7), negative), expected) > SAME
    same_score = {"conditioners.refiner-sizes.nothing.aesthetic_score": 6.0}
    assert grey_levels(drawn(zoo.build(both.record["config"], overrides=same_score), negative), expected) > SAME
    with refused("model-variant-wrong", ConfigError):
        zoo.load(base[1], refiner=base[1])
    with refused("arguments-conflict", UsageError):
        zoo.load(base[1], switch=0.2)


def test_clip_skip_leaves_out_layers_of_the_refiners_encoder_too(base, refiner):
    first, second = base[0], refiner[0]
    call = {"num_inference_steps": STEPS, "guidance_scale": SCALE}

    def states(pipe):  # diffusers skips for the prompt alone; zoo for the negative one too
        names = ("prompt_embeds", "pooled_prompt_embeds")
        made = [pipe.encode_prompt(text, device="cpu", do_classifier_free_guidance=False, clip_skip=1)[::2]
                for text in (PROMPT, NEGATIVE)]  # fmt: skip
        return dict(zip(names, made[0], strict=True)) | {
            f"negative_{name}": value for name, value in zip(names, made[1], strict=True)
        }

    latents = first(
        latents=NOISE.clone(), denoising_end=0.4, output_type="latent", **states(first), **call
    ).images  # fmt: skip
    expected = second(image=latents, denoising_start=0.4, output_type="pt", **states(second), **call).images
    both = zoo.load(base[1], refiner=refiner[1], switch=0.6, clip_skip=1)
    assert grey_levels(drawn(both), expected) <= SAME
    alone = {"conditioners.refiner-clip-g.weights": f"{refiner[1]}#clip-g"}  # the base's encoders alone
    assert grey_levels(drawn(zoo.build(both.record["config"], overrides=alone)), expected) > SAME
    with refused("number-out-of-range", naming="clip_skip"):
        zoo.check(base[1], refiner=refiner[1], clip_skip=2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_stable_diffusion_2_is_diffusers_own_by_what_its_scheduler_says(prediction, tmp_path):
    pipe = stable_diffusion(settings={"prediction_type": prediction}, **SD2)
    pipe.save_pretrained(tmp_path / "sd2")
    expected = pipe(PROMPT, negative_prompt=NEGATIVE, latents=NOISE.clone(), **CALL).images
    assert grey_levels(drawn(zoo.load(tmp_path / "sd2")), expected) <= SAME
    other = {"prediction_type": "v_prediction" if prediction == "epsilon" else "epsilon"}
    for file, change in (
        ("scheduler/scheduler_config.json", other),
        ("tokenizer/tokenizer_config.json", {"pad_token": "<|endoftext|>"}),
        ("unet/config.json", {"attention_head_dim": 2}),
        ("text_encoder/config.json", {"hidden_act": "quick_gelu"}),
    ):
        made = flipped(tmp_path / "sd2", tmp_path, file, change)
        assert grey_levels(drawn(zoo.load(made)), expected) > SAME, file
        shutil.rmtree(made)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("strength", [1.0, 0.8])
def test_a_network_for_inpainting_is_shown_what_diffusers_shows_it(scheduler, strength, tmp_path, monkeypatch):
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    pipe = stable_diffusion(kind=StableDiffusionInpaintPipeline, unet={"in_channels": 9}, scheduler=scheduler)
    pipe.save_pretrained(tmp_path / "inpainting")
    expected = pipe(
        PROMPT, image=picture()[None], mask_image=hole()[None, None], strength=strength, height=SIDE, width=SIDE,
        negative_prompt=NEGATIVE, generator=torch.Generator().manual_seed(5), **CALL,
    ).images  # fmt: skip
    loaded, white = zoo.load(tmp_path / "inpainting"), hole().bool()

    def inside(**given):
        made = drawn(loaded, strength=strength, **given)
        return grey_levels(made[..., white], expected[..., white])

    assert inside(image=picture(), mask=hole()) <= SAME
    assert inside(image=1 - picture(), mask=hole()) > SAME
    assert inside(image=picture(), mask=hole().roll(4, 0)) > SAME
    with refused("image-missing", UsageError):
        loaded(PROMPT)
    with refused("image-missing", UsageError):
        loaded(PROMPT, image=picture())


def test_networks_that_are_shown_something_else_are_refused_by_what_it_is(tmp_path):
    for channels, what in ((5, "depth"), (8, "an image to edit"), (7, "a smaller image"), (6, "2 more channels")):
        place = tmp_path / str(channels)
        stable_diffusion(unet={"in_channels": channels}).save_pretrained(place)
        with refused("model-switch-unfit", ConfigError, naming=what):
            zoo.load(place)
