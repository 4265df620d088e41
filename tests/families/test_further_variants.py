"""SDXL and SD 2 inpainting, depth, x4, unCLIP, LCM, few-step models: zoo draws what diffusers draws.

The noise is given to both; each comparison fails when one switch is flipped.
"""

import json
import shutil

import pytest
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

import zoo
from tests.families import written_variants as variants
from tests.families.test_stable_diffusion import NEGATIVE, NOISE, SIDE, hole, picture
from tests.families.test_variants import SD2, flipped
from tests.families.written import SAME, grey_levels, stable_diffusion, stable_diffusion_xl
from tests.refusals import refused

pytestmark = [pytest.mark.peer, pytest.mark.slow]
PROMPT, STEPS, SCALE = "a red apple on a table, 3d style", 10, 5.0
CALL = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "pt", "negative_prompt": NEGATIVE}


def drawn(pipe, **more):
    call = {"negative": NEGATIVE, "noise": NOISE, "steps": STEPS, "guidance": SCALE, **more}
    return pipe(PROMPT, **call).tensor


def saved(pipe, folder):
    pipe.save_pretrained(folder)
    return folder


def pil(image):
    return Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def noise(*shape, seed=5):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def mode(monkeypatch):
    """diffusers encodes an image to a sample of the posterior; zoo to its mode."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.mark.parametrize("kind", ["sd-2", "sdxl"])
def test_inpainting_by_9_channels_is_diffusers_own_in_the_hole(kind, tmp_path):
    if kind == "sdxl":
        pipe = stable_diffusion_xl(kind=StableDiffusionXLInpaintPipeline, unet={"in_channels": 9})
    else:
        unet = {**SD2["unet"], "in_channels": 9}
        pipe = stable_diffusion(kind=StableDiffusionInpaintPipeline, **{**SD2, "unet": unet})
    place = saved(pipe, tmp_path / "inpainting")
    expected = pipe(
        PROMPT, image=picture()[None], mask_image=hole()[None, None], strength=0.8, height=SIDE, width=SIDE,
        generator=torch.Generator().manual_seed(5), **CALL,
    ).images  # fmt: skip
    loaded, white = zoo.load(place), hole().bool()

    def inside(pipe=loaded, **given):
        made = drawn(pipe, **{"image": picture(), "mask": hole(), "strength": 0.8, **given})
        return grey_levels(made[..., white], expected[..., white])

    assert inside() <= SAME
    assert inside(image=1 - picture()) > SAME
    assert inside(mask=hole().roll(4, 0)) > SAME
    assert inside(zoo.load(flipped(place, tmp_path, "vae/config.json", {"scaling_factor": 0.2}))) > SAME


def test_stable_diffusion_2_draws_by_a_depth_map(tmp_path):
    pipe = variants.depth()
    place = saved(pipe, tmp_path / "depth")
    deep = noise(1, SIDE, SIDE, seed=7)
    expected = pipe(
        PROMPT, image=picture()[None], depth_map=deep, strength=0.8, generator=torch.Generator().manual_seed(5), **CALL
    ).images
    loaded = zoo.load(place)
    given = {"image": picture(), "depth": deep[0], "strength": 0.8}
    assert grey_levels(drawn(loaded, **given), expected) <= SAME
    assert grey_levels(drawn(loaded, **{**given, "depth": -deep[0]}), expected) > SAME
    assert grey_levels(drawn(loaded, **{**given, "strength": 0.6}), expected) > SAME
    alone = loaded(PROMPT, depth=deep[0], noise=NOISE, steps=STEPS)
    assert set(alone.record["inputs"]) == {"depth"}
    with refused("depth-unfit", naming="give depth"):
        loaded(PROMPT)
    with refused("depth-unfit", naming="the same value all over"):
        loaded(PROMPT, depth=torch.zeros(SIDE, SIDE))
    with refused("depth-unfit", naming="leave depth out"):
        zoo.load(saved(stable_diffusion(), tmp_path / "plain"))(PROMPT, depth=deep[0])
    again = loaded.run(
        zoo.Request(samples=(zoo.SampleSpec(prompt=PROMPT, depth=loaded.inputs(depth=deep[0]).depth),)),
        inputs=loaded.inputs(depth=deep[0]).tensors, noise=zoo.FixedNoise(NOISE),
    ) if hasattr(zoo, "Request") else alone  # fmt: skip
    assert again.tensor.shape == alone.tensor.shape


def test_the_x4_upscaler_is_diffusers_own(tmp_path):
    pipe = variants.upscaler()
    place = saved(pipe, tmp_path / "x4")
    small = picture()[:, ::2, ::2]  # 16 pixels a side, drawn at 64
    latents, noised = noise(1, 4, 16, 16, seed=6), noise(1, 3, 16, 16)
    expected = pipe(
        PROMPT, image=small[None], latents=latents, generator=torch.Generator().manual_seed(5), noise_level=20, **CALL
    ).images
    assert expected.shape[-1] == 64
    loaded = zoo.load(place, size=64)

    def made(pipe=loaded, **given):
        return drawn(pipe, **{"image": small, "noise": {"start": latents, "augmentation": noised}, **given})

    assert grey_levels(made(), expected) <= SAME
    assert grey_levels(made(image=1 - small), expected) > SAME
    assert grey_levels(made(noise={"start": latents, "augmentation": -noised}), expected) > SAME
    less = zoo.build(place, size=64, overrides={"stages.base.augmentation": 0.001})
    assert grey_levels(made(less), expected) > SAME
    for file, change in (
        ("low_res_scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}),
        ("unet/config.json", {"attention_head_dim": 4}),
    ):
        made_flipped = flipped(place, tmp_path, file, change)
        assert grey_levels(made(zoo.load(made_flipped, size=64)), expected) > SAME, file
        shutil.rmtree(made_flipped)


def test_the_x4_upscaler_is_a_stage_behind_any_base(tmp_path):
    base, pipe = stable_diffusion(), variants.upscaler()
    places = saved(base, tmp_path / "base"), saved(pipe, tmp_path / "x4")
    latents, noised = noise(1, 4, SIDE, SIDE, seed=6), noise(1, 3, SIDE, SIDE)
    small = base(PROMPT, latents=NOISE.clone(), **CALL).images
    expected = pipe(
        PROMPT, image=small, latents=latents, generator=torch.Generator().manual_seed(5), noise_level=20, **CALL
    ).images
    both = zoo.load(places[0], upscaler=places[1])
    assert [stage.name for stage in both.stages] == ["base", "upscaler"]
    addressed = {("start", 0): NOISE, ("start", 1): latents, "augmentation": noised}
    assert grey_levels(drawn(both, noise=addressed), expected) <= SAME
    other = {**addressed, "augmentation": -noised}
    assert grey_levels(drawn(both, noise=other), expected) > SAME
    with refused("model-variant-wrong", naming="is no x4 upscaler"):
        zoo.load(places[0], upscaler=places[0])


def test_stable_unclip_draws_from_an_images_embedding(tmp_path):
    pipe = variants.unclip()
    place = saved(pipe, tmp_path / "unclip")
    image, eps = pil(picture()), noise(1, 32)
    for level in (0, 300):
        expected = pipe(
            image, PROMPT, latents=NOISE.clone(), generator=torch.Generator().manual_seed(5), height=SIDE, width=SIDE,
            noise_level=level, **CALL,
        ).images  # fmt: skip
        loaded = zoo.load(place)
        loaded.conditioners["image"].level = level
        given = {"image": image, "noise": {"start": NOISE, "embedding": eps}}
        assert grey_levels(drawn(loaded, **given), expected) <= SAME
        for change in ({"image": pil(1 - picture())}, {"noise": {"start": NOISE, "embedding": -4 * eps}}):
            assert grey_levels(drawn(loaded, **{**given, **change}), expected) > SAME
        loaded.conditioners["image"].level = 999
        assert grey_levels(drawn(loaded, **given), expected) > SAME
    for file, change in (
        ("image_encoder/config.json", {"hidden_act": "quick_gelu"}),
        ("image_encoder/config.json", {"num_attention_heads": 4}),
        ("image_noising_scheduler/scheduler_config.json", {"beta_schedule": "linear"}),
    ):
        made = flipped(place, tmp_path, file, change)
        other = zoo.load(made)
        other.conditioners["image"].level = level
        assert grey_levels(drawn(other, **given), expected) > SAME, (file, change)
        shutil.rmtree(made)
    with refused("image-missing", naming="is given an image"):
        loaded(PROMPT)


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_a_latent_consistency_model_takes_its_guidance_as_an_input(steps, tmp_path, monkeypatch):
    pipe = variants.lcm()
    place = saved(pipe, tmp_path / "lcm")
    drawn_at = noise(steps, 1, 4, 8, 8, seed=9)
    rows = iter(drawn_at)
    module = "diffusers.schedulers.scheduling_lcm.randn_tensor"
    monkeypatch.setattr(module, lambda *shape, **more: next(rows))
    expected = pipe(
        PROMPT, latents=NOISE.clone(), num_inference_steps=steps, guidance_scale=SCALE, output_type="pt"
    ).images
    given = {"start": NOISE, "step": list(drawn_at)}

    def made(pipe, **more):
        return pipe(PROMPT, **{"noise": given, "steps": steps, "guidance": SCALE, **more}).tensor

    loaded = zoo.load(place)
    assert grey_levels(made(loaded), expected) <= SAME
    assert grey_levels(made(loaded, guidance=2.0), expected) > SAME
    assert loaded(PROMPT, steps=2, n=1).record["stages"][0]["evaluations"] == 2
    if steps > 2:  # where the grids differ
        other = zoo.build(place, overrides={"stages.base.sampler.grid": "leading"})
        assert grey_levels(made(other), expected) > SAME
    other = zoo.build(place, overrides={"stages.base.sampler": {"name": "ddim", "grid": "lcm"}})
    assert steps == 1 or grey_levels(made(other), expected) > SAME


# A few-step model's scheduler, as its folder was published -> the name zoo has for it.
FEW = {
    "sdxl-turbo": (EulerAncestralDiscreteScheduler, {"timestep_spacing": "trailing"}, 1),
    "sdxl-lightning-4": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}, 4),
    "sdxl-lightning-1": (EulerDiscreteScheduler, {"timestep_spacing": "trailing", "prediction_type": "sample"}, 1),
    "sd-turbo": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}, 1),
}


@pytest.mark.parametrize("name", FEW)
def test_a_few_step_model_is_sampled_as_published(name, tmp_path, monkeypatch):
    scheduler, settings, steps = FEW[name]
    make = stable_diffusion_xl if name.startswith("sdxl") else stable_diffusion
    pipe = make(scheduler=scheduler, settings=settings, **({} if name.startswith("sdxl") else SD2))
    place = saved(pipe, tmp_path / "few")
    drawn_at = noise(4, 1, 4, 8, 8, seed=9)
    rows = iter(drawn_at)
    module = "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor"
    monkeypatch.setattr(module, lambda *shape, **more: next(rows))
    for count in {steps, 2}:  # as published, and two steps, where an ancestral sampler's noise shows
        rows = iter(drawn_at)
        expected = pipe(
            PROMPT, latents=NOISE.clone(), num_inference_steps=count, guidance_scale=0.0, output_type="pt"
        ).images
        named = zoo.build(name, weights=place)
        given = {"start": NOISE, "step": list(drawn_at)}
        chosen = {} if count == steps else {"steps": count}
        assert grey_levels(named(PROMPT, noise=given, size=SIDE, **chosen).tensor, expected) <= SAME
    assert named.record["config"]["stages"][0]["sampler"]["steps"] == steps
    assert grey_levels(named(PROMPT, noise=given, size=SIDE, guidance=2.0).tensor, expected) > SAME
    changed = flipped(place, tmp_path, "scheduler/scheduler_config.json", {"timestep_spacing": "leading"})
    other = zoo.load(changed)
    assert grey_levels(other(PROMPT, noise=given, guidance=1.0, steps=2).tensor, expected) > SAME
    assert json.loads((changed / "scheduler/scheduler_config.json").read_text())["timestep_spacing"] == "leading"
