"""Single files of the further variants draw what diffusers' own conversion of them draws, U-Net and whole pipeline.

What no tensor tells is zoo's table of variants; each line of it that a variant needs is changed and seen.
"""

import dataclasses

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import save_file

import zoo
from tests.families import original, original_further, original_variants
from tests.families.test_further_variants import noise, pil
from tests.families.test_stable_diffusion import hole, picture
from tests.families.written import SAME, SD_SCHEDULE, grey_levels
from tests.networks.random_weights import relative
from tests.refusals import refused
from zoo.families.stable_diffusion.family import _opened
from zoo.families.stable_diffusion.variants import VARIANTS
from zoo.schema.errors import ConfigError, WeightsError

pytestmark = [pytest.mark.peer, pytest.mark.slow]
PROMPT, NEGATIVE, STEPS, SCALE, SIDE = "a red apple on a table, 3d style", "blurry", 4, 5.0, 64
NOISE = noise(1, 4, 8, 8)
CALL = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "pt", "negative_prompt": NEGATIVE}
AGREES = 1e-5  # of two networks' outputs, over the largest


def drawn(pipe, **more):
    call = {"negative": NEGATIVE, "noise": NOISE, "steps": STEPS, "guidance": SCALE, "size": SIDE, **more}
    return pipe(PROMPT, **call).tensor


def seeded():
    return torch.Generator().manual_seed(5)


@pytest.fixture(autouse=True)
def mode(monkeypatch):
    """diffusers encodes an image to a sample of the posterior; zoo to its mode."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.fixture
def changed(monkeypatch):
    """A function: a file's pipeline where zoo's table of variants says something else."""

    def load(path, key, **change):
        with monkeypatch.context() as patch:
            patch.setitem(VARIANTS, key, dataclasses.replace(VARIANTS[key], **change))
            _opened.cache_clear()
            pipe = zoo.load(path)
        _opened.cache_clear()
        return pipe

    return load


def text_read(key, **reading):
    """A variant's text encoders, read otherwise."""
    texts = VARIANTS[key].texts
    return {name: dataclasses.replace(text, reading={**text.reading, **reading}) for name, text in texts.items()}


@torch.no_grad()
def assert_same_network(ours, theirs, *, vector=None, levels=None):
    """One evaluation of both U-Nets is the same, and with another time it isn't."""
    x, context = noise(2, theirs.config.in_channels, 16, 16), noise(2, 7, theirs.config.cross_attention_dim, seed=6)
    time = torch.tensor([7.0, 903.0])
    given = {} if vector is None else {"class_labels": vector}
    wanted = theirs(x, time, encoder_hidden_states=context, **(given if levels is None else {"class_labels": levels}))
    more = {} if vector is None else {"vector": vector}
    more |= {} if levels is None else {"label": levels}
    assert relative(ours(x, time, context=context, **more), wanted.sample) <= AGREES
    assert relative(ours(x, time.flip(0), context=context, **more), wanted.sample) > AGREES


@torch.no_grad()
def assert_same_xl_network(ours, theirs, numbers):
    """The same of SDXL's, whose vector joins a pooled state and numbers."""
    x, context = noise(2, theirs.config.in_channels, 16, 16), noise(2, 7, theirs.config.cross_attention_dim, seed=6)
    time, pooled, ids = torch.tensor([7.0, 903.0]), noise(2, 128, seed=7), 100 * noise(2, numbers, seed=8).abs()
    added = {"text_embeds": pooled, "time_ids": ids}
    wanted = theirs(x, time, encoder_hidden_states=context, added_cond_kwargs=added).sample
    vector = torch.cat([pooled, theirs.add_time_proj(ids.flatten()).reshape(2, -1)], 1)
    assert relative(ours(x, time, context=context, vector=vector), wanted) <= AGREES
    assert relative(ours(x, time, context=context, vector=vector.flip(0)), wanted) > AGREES


def network(pipe):
    return pipe.stages[0].denoiser.network


@pytest.mark.parametrize("kind", ["sd-2", "sdxl-base"])
def test_a_file_of_9_channels_draws_in_the_hole_what_diffusers_draws(kind, tmp_path, changed):
    key, path = f"{kind}-inpainting", tmp_path / "inpainting.safetensors"
    if kind == "sd-2":
        state = original_variants.stable_diffusion_2("v2-inpainting-inference")
        pipe = original_variants.quiet(StableDiffusionInpaintPipeline(
            scheduler=DDIMScheduler.from_config(SD_SCHEDULE), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False, **original_variants.converted_text_2(state),
            **original_variants.converted_networks(state, {**original_variants.SD2_UNET, "in_channels": 9}, 0.18215),
        ))  # fmt: skip
    else:
        state = original_variants.sdxl(9)
        pipe = original_variants.converted_xl(state, StableDiffusionXLInpaintPipeline, in_channels=9)
    save_file(state, path)
    expected = pipe(
        PROMPT, image=picture(SIDE)[None], mask_image=hole(SIDE)[None, None], strength=1.0, height=SIDE, width=SIDE,
        generator=seeded(), latents=NOISE.clone(), **CALL,
    ).images  # fmt: skip
    loaded, white = zoo.load(path), hole(SIDE).bool()
    if kind == "sd-2":
        assert_same_network(network(loaded), pipe.unet)
    else:
        assert_same_xl_network(network(loaded), pipe.unet, 6)

    def inside(pipe=loaded, **given):
        made = drawn(pipe, **{"image": picture(SIDE), "mask": hole(SIDE), **given})
        return grey_levels(made[..., white], expected[..., white])

    assert inside() <= SAME
    assert inside(image=1 - picture(SIDE)) > SAME
    assert inside(mask=hole(SIDE).roll(8, 0)) > SAME
    for change in (
        {"heads": {"head_width": 32}}, {"scale": 0.2}, {"prediction": "v"}, {"texts": text_read(key, layer=1)}
    ):  # fmt: skip
        assert inside(changed(path, key, **change)) > SAME, change
    name = {"sd-2": "sd-2-inpainting", "sdxl-base": "sdxl-inpainting"}[kind]
    assert inside(zoo.build(name, weights=path)) <= SAME
    with refused("model-variant-wrong", ConfigError):
        zoo.build("sd-1.5-inpainting", weights=path)


def test_a_file_for_depth_draws_what_diffusers_draws(tmp_path, changed):
    state, path = original_further.depth(), tmp_path / "depth.ckpt"
    torch.save(original.lightning(state), path)
    pipe = original_variants.quiet(StableDiffusionDepth2ImgPipeline(
        scheduler=DDIMScheduler.from_config(SD_SCHEDULE), depth_estimator=None, feature_extractor=None,
        **original_variants.converted_text_2(state),
        **original_variants.converted_networks(state, {**original_variants.SD2_UNET, "in_channels": 5}, 0.18215),
    ))  # fmt: skip
    deep = noise(1, SIDE, SIDE, seed=7)
    expected = pipe(PROMPT, image=picture(SIDE)[None], depth_map=deep, strength=0.75, generator=seeded(), **CALL).images
    loaded = zoo.load(path)
    assert_same_network(network(loaded), pipe.unet)
    given = {"image": picture(SIDE), "depth": deep[0], "strength": 0.75}
    assert grey_levels(drawn(loaded, **given), expected) <= SAME
    assert grey_levels(drawn(loaded, **{**given, "depth": -deep[0]}), expected) > SAME
    for change in (
        {"heads": {"head_width": 32}}, {"scale": 0.2}, {"prediction": "v"},
        {"texts": text_read("sd-2-depth", layer=1)},
    ):  # fmt: skip
        assert grey_levels(drawn(changed(path, "sd-2-depth", **change), **given), expected) > SAME, change


def test_a_file_of_unclip_draws_from_an_image_what_diffusers_draws(tmp_path, changed):
    state, path = original_further.unclip(), tmp_path / "unclip.safetensors"
    save_file(state, path)
    pipe = original_further.converted_unclip(state)
    loaded = zoo.load(path)
    assert_same_network(network(loaded), pipe.unet, vector=noise(2, 2048, seed=7))
    image, eps = pil(picture(SIDE)), noise(1, 1024)
    given = {"image": image, "noise": {"start": NOISE, "embedding": eps}}
    for level in (0, 300):
        expected = pipe(
            image, PROMPT, latents=NOISE.clone(), generator=seeded(), height=SIDE, width=SIDE, noise_level=level,
            **CALL,
        ).images  # fmt: skip

        def difference(pipe, level=level, expected=expected, **change):
            pipe.conditioners["image"].level = level
            return grey_levels(drawn(pipe, **{**given, **change}), expected)

        assert difference(loaded) <= SAME
        assert difference(loaded, image=pil(1 - picture(SIDE))) > SAME
        assert difference(loaded, noise={"start": NOISE, "embedding": -4 * eps}) > SAME
    image = VARIANTS["sd-2-unclip"].image
    assert image is not None
    for reading in ({"activation": "quick-gelu"}, {"heads": 8}, {"schedule": {"name": "linear"}}):
        other = dataclasses.replace(image, reading={**image.reading, **reading})
        assert difference(changed(path, "sd-2-unclip", image=other)) > SAME, reading
    for change in ({"heads": {"head_width": 32}}, {"scale": 0.2}, {"prediction": "eps"}):
        assert difference(changed(path, "sd-2-unclip", **change)) > SAME, change


def test_a_file_of_the_x4_upscaler_draws_what_diffusers_draws(tmp_path, changed):
    state, path = original_further.upscaler(), tmp_path / "x4.safetensors"
    save_file(state, path)
    pipe = original_further.converted_upscaler(state)
    small, latents, noised = picture(16), noise(1, 4, 16, 16, seed=6), noise(1, 3, 16, 16)
    expected = pipe(
        PROMPT, image=small[None], latents=latents, generator=seeded(), noise_level=20, **CALL
    ).images  # fmt: skip
    loaded = zoo.load(path, size=64)
    assert_same_network(network(loaded), pipe.unet, levels=torch.tensor([20, 350]))

    def difference(pipe=loaded, **change):
        given = {"image": small, "noise": {"start": latents, "augmentation": noised}, "size": 64, **change}
        return grey_levels(drawn(pipe, **given), expected)

    assert difference() <= SAME
    assert difference(image=1 - small) > SAME
    assert difference(noise={"start": latents, "augmentation": -noised}) > SAME
    key = "sd-2-x4"
    for change in (
        {"heads": {"head_width": 64}}, {"scale": 0.18215}, {"prediction": "eps"}, {"level": 0.001},
        {"schedule": VARIANTS["sd-2"].schedule}, {"texts": text_read(key, layer=1)},
        {"low_res": {**VARIANTS[key].low_res, "schedule": VARIANTS["sd-2"].schedule}},
    ):  # fmt: skip
        other = changed(path, key, sizes={"eps": 64, "v": 64, "x0": 64}, **change)
        assert difference(other) > SAME, change


def test_a_file_of_sdxls_refiner_draws_behind_the_bases_file_what_diffusers_draws(tmp_path, changed):
    states = original_variants.sdxl(), original_further.refiner()
    paths = tmp_path / "base.safetensors", tmp_path / "refiner.safetensors"
    for state, path in zip(states, paths, strict=True):
        save_file(state, path)
    first, second = original_variants.converted_xl(states[0]), original_further.converted_refiner(states[1])
    call = {**CALL, "num_inference_steps": 10}
    latents = first(
        PROMPT, latents=NOISE.clone(), denoising_end=0.4, height=SIDE, width=SIDE, **{**call, "output_type": "latent"}
    ).images
    sizes = {"original_size": (SIDE, SIDE), "target_size": (SIDE, SIDE)}
    expected = second(PROMPT, image=latents, denoising_start=0.4, **sizes, **call).images
    both = zoo.load(paths[0], refiner=paths[1], switch=0.6)
    assert_same_xl_network(both.stages[1].denoiser.network, second.unet, 5)
    assert grey_levels(drawn(both, steps=10), expected) <= SAME
    assert grey_levels(drawn(zoo.load(paths[0]), steps=10), expected) > SAME
    assert grey_levels(drawn(zoo.load(paths[0], refiner=paths[1], switch=0.7), steps=10), expected) > SAME
    same_score = {"conditioners.refiner-sizes.nothing.aesthetic_score": 6.0}
    assert grey_levels(drawn(zoo.build(both.record["config"], overrides=same_score), steps=10), expected) > SAME
    for field, value in (("layer", 1), ("final_norm", True), ("pad", "end")):
        text = both.conditioners["refiner-clip-g"]
        was = getattr(text, field)
        setattr(text, field, value)
        assert grey_levels(drawn(both, steps=10), expected) > SAME, field
        setattr(text, field, was)


def test_a_tensor_less_and_a_tensor_more_are_refused_by_name(tmp_path):
    state, path = original_further.unclip(), tmp_path / "unclip.safetensors"
    lost = f"{original_further.VISION_KEY}ln_post.bias"
    save_file({n: t for n, t in state.items() if n != lost}, path)
    with refused("tensors-unfit", WeightsError, naming="ln_post.bias"):
        zoo.load(path)
    save_file(state | {f"{original.UNET_KEY}label_emb.1.weight": torch.ones(2)}, path)
    with refused("tensors-unfit", WeightsError, naming="label_emb.1.weight"):
        zoo.load(path)
