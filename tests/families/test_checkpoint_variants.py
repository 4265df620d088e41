"""Single files of Stable Diffusion 2, SDXL and inpainting draw what diffusers' own conversion of them draws."""

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import save_file

import zoo
from tests.families import original, original_variants
from tests.families.test_stable_diffusion import hole, picture
from tests.families.written import SAME, grey_levels
from tests.refusals import refused
from zoo.schema.errors import ConfigError

pytestmark = [pytest.mark.peer, pytest.mark.slow]
PROMPT, STEPS, SIDE = "a red apple on a table, 3d style", 6, 64
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))


def expected(pipe, scale, **more):
    return pipe(
        PROMPT, latents=NOISE.clone(), num_inference_steps=STEPS, guidance_scale=scale, height=SIDE, width=SIDE,
        output_type="pt", **more,
    ).images  # fmt: skip


def made(pipe, **more):
    return pipe(PROMPT, noise=NOISE, steps=STEPS, size=SIDE, **more).tensor


@pytest.mark.parametrize(("said", "prediction"), [("eps", "epsilon"), ("v", "v_prediction")])
def test_a_file_of_stable_diffusion_2_draws_as_it_is_said(said, prediction, tmp_path):
    state = original_variants.stable_diffusion_2()
    save_file(state, tmp_path / "v2.safetensors")
    with refused("model-ambiguous", ConfigError):
        zoo.load(tmp_path / "v2.safetensors")
    wanted = expected(original_variants.converted_2(state, prediction), 7.5)
    loaded = zoo.load(tmp_path / "v2.safetensors", prediction=said)
    assert grey_levels(made(loaded), wanted) <= SAME
    other = zoo.load(tmp_path / "v2.safetensors", prediction="v" if said == "eps" else "eps")
    assert grey_levels(made(other), wanted) > SAME
    for field, value in (("layer", 1), ("final_norm", False), ("pad", "end")):
        text = loaded.conditioners["text"]
        was = getattr(text, field)
        setattr(text, field, value)
        assert grey_levels(made(loaded), wanted) > SAME, field
        setattr(text, field, was)
    named = zoo.build("sd-2.1" if said == "v" else "sd-2.1-base", weights=tmp_path / "v2.safetensors")
    assert grey_levels(made(named), wanted) <= SAME


def test_a_file_of_sdxl_draws_what_diffusers_conversion_draws(tmp_path):
    state = original_variants.sdxl()
    save_file(state, tmp_path / "xl.safetensors")
    pipe = original_variants.converted_xl(state)
    loaded = zoo.build("sdxl-base", weights=tmp_path / "xl.safetensors")
    for negative in (None, "blurry"):
        wanted = expected(pipe, 5.0, negative_prompt=negative)
        assert grey_levels(made(loaded, negative=negative), wanted) <= SAME
    for name, field, value in (
        ("clip-l", "layer", 1), ("clip-l", "final_norm", True), ("clip-l", "pad", "zero"), ("clip-g", "layer", 1),
        ("clip-g", "final_norm", True), ("clip-g", "pad", "end"),
    ):  # fmt: skip
        text = loaded.conditioners[name]
        was = getattr(text, field)
        setattr(text, field, value)
        assert grey_levels(made(loaded, negative="blurry"), wanted) > SAME, (name, field)
        setattr(text, field, was)
    with refused("model-variant-wrong", ConfigError, naming="sd-1.5"):
        zoo.build("sd-1.5", weights=tmp_path / "xl.safetensors")


def test_a_file_for_inpainting_draws_in_the_hole_what_diffusers_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    state = original.stable_diffusion_1(unet="original/unet-inpainting")
    save_file(state, tmp_path / "inpainting.safetensors")
    plain = original.converted(state, in_channels=9)
    pipe = StableDiffusionInpaintPipeline(**plain.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    image, white = picture(SIDE), hole(SIDE)
    wanted = expected(pipe, 7.5, image=image[None], mask_image=white[None, None], strength=1.0)
    drawn = made(zoo.load(tmp_path / "inpainting.safetensors"), image=image, mask=white)
    assert grey_levels(drawn[..., white.bool()], wanted[..., white.bool()]) <= SAME
    other = made(zoo.load(tmp_path / "inpainting.safetensors"), image=1 - image, mask=white)
    assert grey_levels(other[..., white.bool()], wanted[..., white.bool()]) > SAME
