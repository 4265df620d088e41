"""Cascades: what each stage is handed of the one below, alone and together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.refusals import refused
from tests.tiny import TinyNet, randomise, tiny_cascade, tiny_pipeline
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.low_res import GaussianAugmentation, Plain
from zoo.diffusion.noise import AddressedNoise
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import CosineSchedule
from zoo.schema.errors import UsageError


@pytest.fixture(scope="module")
def pipe():
    return tiny_cascade()


def listen(pipe, number, monkeypatch):
    """Every call of a stage's network: its input, and what it was told."""
    seen = []
    network = pipe.stages[number].denoiser.network
    forward = network.forward
    monkeypatch.setattr(
        network, "forward", lambda x, time, **named: seen.append((x, named)) or forward(x, time, **named)
    )
    return seen


def test_a_cascade_draws_pictures_of_its_last_stage_and_of_earlier_ones_when_asked(pipe):
    assert pipe("cat", n=2).tensor.shape == (2, 3, 32, 32)
    assert pipe("cat", stages=1).tensor.shape == (1, 3, 8, 8)
    assert pipe("cat", stages=2).tensor.shape == (1, 3, 16, 16)
    assert [s["name"] for s in pipe("cat").record["stages"]] == ["s8", "s16", "s32"]


def test_a_sample_of_a_cascade_is_the_same_in_any_batch(pipe):
    whole = pipe(["a", "b", "c"], seed=3).samples
    for batch_size in (1, 2):
        torch.testing.assert_close(
            pipe(["a", "b", "c"], seed=3, batch_size=batch_size).samples, whole, atol=2e-5, rtol=0
        )


def test_the_cascade_is_its_stages_one_after_another(pipe):
    picture = pipe.stage(0)("cat", seed=5).tensor
    assert torch.equal(picture, pipe("cat", seed=5, stages=1).tensor)
    for number in (1, 2):
        picture = pipe.stage(number)("cat", seed=5, image=picture).tensor
        torch.testing.assert_close(picture, pipe("cat", seed=5, stages=number + 1).tensor, atol=1e-5, rtol=0)


def test_the_small_picture_is_noised_as_its_address_and_level_say(pipe, monkeypatch):
    seen = listen(pipe, 1, monkeypatch)
    base = pipe("cat", seed=5, stages=1).tensor * 2 - 1
    pipe("cat", seed=5, stages=2)
    eps = AddressedNoise(5)((3, 8, 8), purpose="augmentation", samples=[0], stage=1)
    alpha, sigma = (float(v) for v in CosineSchedule()(0.2))
    expected = F.interpolate(alpha * base + sigma * eps, (16, 16), mode="bilinear", align_corners=False)
    for x, named in seen:
        torch.testing.assert_close(x[:1, 3:], expected, atol=1e-5, rtol=0)
        assert torch.equal(named["level"], torch.full((2,), 0.2))
    assert len(seen) == 3


def test_guidance_never_drops_the_small_picture_or_its_level(pipe, monkeypatch):
    seen = listen(pipe, 1, monkeypatch)
    pipe("cat", stages=2)
    for x, named in seen:
        assert torch.equal(x[0, 3:], x[1, 3:])
        assert torch.equal(named["level"][:1], named["level"][1:])
        assert not torch.allclose(named["context"][0], named["context"][1])


def test_without_augmentation_the_small_picture_is_clean(monkeypatch):
    pipe = tiny_cascade(augmentation=None)
    seen = listen(pipe, 1, monkeypatch)
    pipe("cat", stages=2)
    base = pipe("cat", stages=1).tensor * 2 - 1
    expected = F.interpolate(base, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0][0][:1, 3:], expected, atol=1e-5, rtol=0)
    assert seen[0][1]["level"].tolist() == [0.0, 0.0]


def truncated(stop=0.34, steps=3):
    """The base stops at t = stop, which its grid of three steps may pass."""
    pipe = tiny_cascade(sizes=(8, 16), augmentation=None, steps=steps)
    pipe.stages = [replace(pipe.stages[0], interval=(1.0, stop)), pipe.stages[1]]
    return pipe


def test_truncated_conditioning_hands_on_the_noisy_sample_and_the_t_where_it_really_stopped(monkeypatch):
    pipe = truncated()
    seen = listen(pipe, 1, monkeypatch)
    pipe("cat", seed=5)
    stop = pipe.stages[0].sampler.plan(CosineSchedule(), interval=(1.0, 0.34)).steps[-1].t_next
    assert stop == pytest.approx(0.333)
    assert seen[0][1]["level"].tolist() == pytest.approx([stop, stop])
    # x_s of the base itself, as a stage that hands on its latent gives it.
    base = tiny_cascade(sizes=(8, 16))
    base.stages = [replace(pipe.stages[0], feeds="latent")]
    x_s = base("cat", seed=5).samples
    expected = F.interpolate(x_s, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0][0][:1, 3:], expected, atol=1e-6, rtol=0)


def test_a_truncated_base_alone_is_drawn_to_the_end():
    pipe = truncated()
    whole = tiny_cascade(sizes=(8, 16), augmentation=None)
    assert torch.equal(pipe("cat", stages=1).tensor, whole("cat", stages=1).tensor)
    assert torch.equal(pipe.stage(0)("cat").tensor, whole("cat", stages=1).tensor)
    assert pipe.stage(1).stages[0].augmentation == 0.34


def test_one_stage_runs_alone_from_any_small_picture_at_any_level(pipe):
    small = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = [pipe.stage("s16", augmentation=s)(["a", "b", "c"], image=small).samples for s in (0.0, 0.2, 0.9)]
    assert drawn[0].shape == (3, 3, 16, 16)
    assert torch.equal(drawn[1], pipe.stage(1)(["a", "b", "c"], image=small).samples)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)
    assert not torch.allclose(drawn[1], drawn[2], atol=1e-3)
    with refused("stage-unknown", naming="'s64'"):
        pipe.stage("s64")
    with refused("augmentation-out-of-range", UsageError):
        pipe.stage(1, augmentation=1.1)
    with refused("augmentation-unread", UsageError):
        pipe.stage(0, augmentation=0.1)


def test_an_upscaler_takes_any_picture_and_needs_one(pipe):
    upscale = pipe.stage(2)
    assert upscale(image=Image.new("RGB", (50, 40), "red"), n=2).tensor.shape == (2, 3, 32, 32)
    assert upscale(image=torch.zeros(3, 16, 24), size=(32, 48)).tensor.shape == (1, 3, 32, 48)
    for arguments, refusal in (
        ({}, "image-missing"),
        ({"image": torch.zeros(3, 32, 32)}, "image-shape-wrong: give (3, 16, 16)"),
        ({"image": torch.zeros(3, 16, 16), "strength": 0.5}, "image-is-no-start"),
        ({"image": torch.zeros(3, 16, 16), "mask": torch.ones(16, 16)}, "image-is-no-start"),
    ):
        with refused(refusal):
            upscale(**arguments)


def test_other_sizes_keep_the_stages_in_proportion(pipe):
    assert pipe("cat", size=(32, 48)).tensor.shape == (1, 3, 32, 48)
    assert pipe("cat", size=(16, 24), stages=2).tensor.shape == (1, 3, 16, 24)
    with refused("size-indivisible", UsageError, naming="'s8'"):
        pipe("cat", size=(33, 32))


def test_an_image_starts_the_base_of_a_cascade_and_a_mask_is_refused(pipe):
    image = Image.new("RGB", (64, 64), "red")
    assert pipe("cat", image=image).tensor.shape == (1, 3, 32, 32)
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    drawn = [pipe("cat", image=image, strength=s, steps=20, stages=1).samples for s in (0.1, 0.5, 1.0)]
    far = [float((d - red).square().mean()) for d in drawn]
    assert far[0] < far[1] < far[2]
    with refused("mask-unfit"):
        pipe("cat", image=image, mask=torch.ones(8, 8))


def test_a_latent_base_feeds_a_pixel_stage():
    latent, sr = tiny_pipeline(), tiny_cascade(sizes=(32, 64)).stages[1]
    base = latent("cat", seed=2).tensor
    latent.stages = [replace(latent.stages[0], feeds="low_res"), sr]
    mixed = latent("cat", seed=2)
    assert mixed.tensor.shape == (1, 3, 64, 64)
    torch.testing.assert_close(mixed.tensor, latent.stage(1)("cat", seed=2, image=base).tensor, atol=1e-5, rtol=0)


def test_stages_differ_in_sampler_steps_guidance_and_level(pipe, monkeypatch):
    stages = list(pipe.stages)
    other = tiny_cascade()
    other.stages = [stages[0], replace(stages[1], guidance=(), augmentation=0.5), stages[2]]
    seen = [listen(other, number, monkeypatch) for number in (1, 2)]
    other("cat")
    assert [len(s[0][0]) for s in seen] == [1, 2]
    assert [float(s[0][1]["level"][0]) for s in seen] == [0.5, pytest.approx(0.2)]


def test_nobody_saying_how_small_is_told():
    stage = replace(tiny_cascade().stages[1], feeds="image")
    alone = tiny_cascade()
    alone.stages = [stage]
    with refused("small-size-missing"):
        alone(image=torch.zeros(3, 8, 8))


@pytest.mark.parametrize("noised", ["before", "after"])
@pytest.mark.parametrize("resize", ["bilinear", "bicubic"])
def test_augmentation_at_level_zero_is_plain_and_each_row_has_its_own_level(noised, resize):
    low_res = GaussianAugmentation(schedule=CosineSchedule(), resize=resize, noised=noised)
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(3, 3, 4, 6, generator=generator) * 2 - 1
    shape = low_res.noise_shape((4, 6), (8, 12))
    assert shape == ((3, 4, 6) if noised == "before" else (3, 8, 12))
    eps = torch.randn(3, *shape, generator=generator)
    level = torch.tensor([0.0, 0.5, 1.0])
    made = low_res(small, size=(8, 12), level=level, eps=eps)
    plain = Plain(resize=resize)(small, size=(8, 12))
    torch.testing.assert_close(made.concat[0], plain.concat[0])
    noise = F.interpolate(eps, (8, 12), mode=resize) if noised == "before" else eps
    alpha, sigma = CosineSchedule()(0.5)
    torch.testing.assert_close(
        made.concat[1], float(alpha) * plain.concat[1] + float(sigma) * noise[1], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(made.concat[2], noise[2], atol=1e-2, rtol=0)
    assert torch.equal(made.level, level)
    assert plain.level is None


def test_low_res_refuses_what_it_cannot_do():
    small = torch.zeros(1, 3, 4, 4)
    with refused("augmentation-untrained", UsageError):
        Plain()(small, size=(8, 8), level=torch.ones(1))
    with refused("noise-missing"):
        GaussianAugmentation(schedule=CosineSchedule())(small, size=(8, 8), level=torch.ones(1))
    with refused("choice-unknown", naming="nearest"):
        Plain(resize="nearest")  # type: ignore[arg-type]


def test_the_level_reaches_a_half_precision_network_in_float32():
    network = randomise(TinyNet(in_channels=6), 1).to(torch.bfloat16)
    denoiser = Denoiser(
        network=network, schedule=CosineSchedule(), parameterization=V(),
        low_res=GaussianAugmentation(schedule=CosineSchedule()),
    )  # fmt: skip
    pipe = tiny_cascade()
    seen = []
    forward = network.forward
    network.forward = lambda x, t, **named: seen.append(named["level"]) or forward(x, t, **named)  # type: ignore[method-assign]
    pipe.stages = [replace(pipe.stage(1).stages[0], denoiser=denoiser, augmentation=0.123)]
    pipe(image=torch.zeros(3, 8, 8))
    assert seen[0].dtype == torch.float32
    assert float(seen[0][0]) == pytest.approx(0.123)
