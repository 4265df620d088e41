"""The shipped weights, drawn with and checked against another library."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from tests.refusals import refused
from zoo.config.cards import card_names, read_card
from zoo.samplers.dpmpp import DPMpp2M
from zoo.schema.errors import WeightsError

PROMPTS = ["red apple, 3d style", "red apple, firefox style", "sun, flat style", "cat face, noto style"]
LIMIT = 18 * 10**6  # bytes of the latent pipeline's weights together


@pytest.fixture(scope="module")
def pipe():
    return zoo.build("latent-text2img")


@pytest.fixture(scope="module")
def apple(pipe):
    return pipe("red apple, 3d style", n=4, seed=0)


@pytest.mark.slow
def test_an_apple_is_red_on_white(apple):
    for picture in apple.tensor:
        corners = picture[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert float(corners.mean()) > 0.9
        centre = picture[:, 20:48, 20:44].mean(dim=(1, 2))
        assert float(centre[0]) > float(centre[1]) + 0.25
        assert float(centre[0]) > float(centre[2]) + 0.25


@pytest.mark.slow
def test_the_prompt_decides_the_picture(pipe):
    asked = ["red apple, flat style", "green apple, flat style", "blue heart, flat style", "full moon, flat style"]
    made = pipe(asked, seed=0, noise=torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0)))
    means = made.tensor.mean(dim=(2, 3))
    assert float(means[0, 0] - means[0, 1]) > 0.1  # red over green
    assert float(means[2, 2] - means[2, 0]) > 0.1  # blue over red


@pytest.mark.slow
def test_line_style_is_black_and_white_and_flat_is_not(pipe):
    names = ["red apple", "sun", "pizza", "red heart"]
    line = pipe([f"{n}, black and white line style" for n in names], seed=1).tensor
    flat = pipe([f"{n}, flat style" for n in names], seed=1).tensor

    def colourfulness(x):
        return float((x.amax(dim=1) - x.amin(dim=1)).mean())

    assert colourfulness(line) < 0.5 * colourfulness(flat)


@pytest.mark.slow
def test_two_samplers_agree_when_both_take_many_steps(pipe):
    fine = pipe("sun, flat style", seed=3, steps=100)
    other = zoo.build("latent-text2img", sampler="dpmpp-2m")("sun, flat style", seed=3, steps=100)
    assert isinstance(zoo.build("latent-text2img", sampler="dpmpp-2m").stages[0].sampler, DPMpp2M)
    assert float((fine.tensor - other.tensor).abs().mean()) < 0.03


@pytest.mark.slow
def test_img2img_and_inpainting_on_the_shipped_model(pipe, apple):
    image = apple.tensor[0]
    near = pipe("blue heart, 3d style", image=image, strength=0.2, seed=9)
    far = pipe("blue heart, 3d style", image=image, strength=0.9, seed=9)
    assert (near.tensor[0] - image).abs().mean() < (far.tensor[0] - image).abs().mean()
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1
    half = pipe("blue heart, 3d style", image=image, mask=mask, seed=5)
    torch.testing.assert_close(half.tensor[0][:, :, :32], image[:, :, :32], atol=1e-6, rtol=0)
    assert (half.tensor[0] - image)[:, :, 32:].abs().mean() > 0.02


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("steps", [20, 25])
def test_diffusers_draws_the_same_pictures_from_an_export(pipe, tmp_path, steps):
    from diffusers import StableDiffusionPipeline

    from zoo.families.diffusers.export import export_diffusers

    export_diffusers(pipe, tmp_path / "out")
    other = StableDiffusionPipeline.from_pretrained(
        tmp_path / "out", safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    other.set_progress_bar_config(disable=True)
    x = torch.randn(len(PROMPTS), 4, 16, 16, generator=torch.Generator().manual_seed(1))
    ours = pipe(PROMPTS, noise=x, steps=steps, guidance=4.0)
    theirs = other(
        PROMPTS, latents=x.clone(), num_inference_steps=steps, guidance_scale=4.0, height=64, width=64, output_type="np"
    ).images
    mine = np.stack([np.asarray(i) for i in ours.images]).astype(int)
    assert np.abs(mine - np.rint(theirs * 255).astype(int)).max() <= 1


@pytest.mark.slow
def test_half_the_precision_draws_nearly_the_same(pipe):
    exact = pipe(PROMPTS, seed=2).tensor
    rough = zoo.build("latent-text2img", dtype="bfloat16")(PROMPTS, seed=2).tensor
    assert float((exact - rough).abs().mean()) < 0.03


def test_a_long_prompt_and_unknown_words_are_told(pipe):
    with refused("word-unknown", naming="'flurbish'"):
        pipe("a snorgle and a flurbish, 3d style")
    with refused("prompt-too-long", naming="40"):
        pipe("red " * 40)


@pytest.mark.slow
def test_every_shipped_card_loads_and_all_fit_the_limit():
    total = 0
    for name in card_names():
        card = read_card(name)
        assert zoo.load(name) is not None
        for key in ("summary", "licence", "attribution", "data", "recipe", "provenance", "metrics"):
            assert card.raw.get(key), f"{name} says nothing of {key}"
        total += card.bytes if name in ("emoji-base-32-text", "emoji-kl-f4", "emoji-latent-64") else 0
    assert total <= LIMIT


@pytest.mark.parametrize("spoil", ["truncate", "flip", "swap", "missing"])
def test_damaged_weights_are_refused_by_name(tmp_path, spoil):
    source = read_card("emoji-kl-f4")
    (tmp_path / "mine.yaml").write_bytes(source.path.read_bytes())
    data = bytearray(source.file.read_bytes())
    if spoil == "truncate":
        data = data[:-100]
    elif spoil == "flip":
        data[len(data) // 2] ^= 1
    elif spoil == "swap":
        data = bytearray(read_card("emoji-latent-64").file.read_bytes())
    if spoil != "missing":
        (tmp_path / source.file.name).write_bytes(data)
    damaged = "weights-hash-wrong|weights-missing|weights-size-wrong"
    with refused(damaged, WeightsError, naming="emoji-kl-f4.safetensors"):
        zoo.build("latent-text2img", overrides={"stages.0.autoencoder": {"weights": str(tmp_path / "mine.yaml")}})
