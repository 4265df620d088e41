"""What a pipeline promises, whatever its weights: addressed noise, tasks, refusals, records."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_pipeline
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.noise import FixedNoise
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import TabulatedSchedule
from zoo.images.space import Images
from zoo.pipeline.generation import read_record
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.safety import MeanBrightness
from zoo.schema.errors import UsageError


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_same_seed_same_picture_and_another_seed_another(pipe):
    first, again, other = pipe("cat", seed=1), pipe("cat", seed=1), pipe("cat", seed=2)
    assert torch.equal(first.samples, again.samples)
    assert not torch.allclose(first.samples, other.samples, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_sample_is_the_same_in_any_batch(eta):
    pipe = tiny_pipeline(eta=eta)
    prompts = ["a", "b", "c", "d", "e"]
    whole = pipe(prompts, seed=3)
    for batch_size in (1, 2, 3):
        parts = pipe(prompts, seed=3, batch_size=batch_size)
        torch.testing.assert_close(parts.samples, whole.samples, atol=2e-5, rtol=0)
    alone = pipe("a", seed=3)
    torch.testing.assert_close(alone.samples[0], whole.samples[0], atol=2e-5, rtol=0)


def test_n_pictures_a_prompt_stand_beside_each_other_and_differ(pipe):
    made = pipe(["cat", "dog"], n=3)
    assert [i["prompt"] for i in made.record["images"]] == ["cat"] * 3 + ["dog"] * 3
    assert len(made.images) == 6
    assert not torch.allclose(made.samples[0], made.samples[1], atol=1e-2)


def test_tensor_is_in_the_unit_range_and_images_are_its_rounding(pipe):
    made = pipe("cat")
    assert made.tensor.shape == (1, 3, 32, 32)
    assert float(made.tensor.min()) >= 0
    assert float(made.tensor.max()) <= 1
    as_array = np.asarray(made.images[0], dtype=np.float32).transpose(2, 0, 1) / 255
    assert np.abs(as_array - made.tensor[0].numpy()).max() <= 0.5 / 255 + 1e-6


def test_guidance_one_ignores_the_negative_prompt_and_guidance_four_does_not(pipe):
    assert torch.equal(pipe("cat", guidance=1.0).samples, pipe("cat", guidance=1.0, negative="dog").samples)
    assert not torch.allclose(pipe("cat", guidance=4.0).samples, pipe("cat", guidance=4.0, negative="dog").samples)


@pytest.mark.parametrize(("initial_scale", "expected"), [("sigma_T", (1.0 - 0.95**5) ** 0.5), ("unit", 1.0)])
def test_a_run_starts_at_the_scale_that_the_weights_say(initial_scale, expected):
    tiny = tiny_pipeline().stages[0]
    made = Denoiser(
        network=tiny.denoiser.network, parameterization=V(), initial_scale=initial_scale,
        schedule=TabulatedSchedule(table=[0.05] * 5),  # ends far from pure noise
    )  # fmt: skip
    pipe = Pipeline(conditioners=tiny_pipeline().conditioners, stages=[replace(tiny, denoiser=made)])
    x, seen = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), []
    pipe("cat", noise=x, callback=lambda report: seen.append(report.x_t))
    assert torch.allclose(seen[0], expected * x)


def test_given_noise_starts_the_run(pipe):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pipe("cat", n=2, noise=x).samples, pipe("cat", n=2, noise=FixedNoise({"start": x})).samples)
    with refused("counts-differ"):
        pipe("cat", n=3, noise=x)


def test_size_changes_the_picture_and_impossible_sizes_are_refused(pipe):
    assert pipe("cat", size=(32, 48)).tensor.shape == (1, 3, 32, 48)
    with refused("size-indivisible", UsageError):
        pipe("cat", size=36)


def test_img2img_keeps_more_of_the_image_the_smaller_the_strength(pipe, picture):
    known = pipe.stages[0].autoencoder.encode(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1)
    far = [
        float((pipe("cat", image=picture, strength=s, steps=20).samples - known).square().mean())
        for s in (0.1, 0.4, 1.0)
    ]
    assert far[0] < far[1] < far[2]


def test_inpainting_keeps_the_known_pixels_exactly_and_redraws_the_rest(pipe, picture):
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    made = pipe("cat", image=picture, mask=mask)
    before, after = np.asarray(picture).astype(int), np.asarray(made.images[0]).astype(int)
    assert np.array_equal(before[:, 16:], after[:, 16:])
    assert np.abs(before[:, :16] - after[:, :16]).mean() > 1
    assert set(made.record["inputs"]) == {"image", "mask"}


def test_the_redrawn_part_does_not_depend_on_what_the_mask_hides(pipe, picture):
    mask = torch.zeros(32, 32)
    mask[:16] = 1
    hidden = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    first = pipe("cat", image=hidden, mask=mask)
    start = first.samples[:, :, :4]
    other = hidden.clone()
    other[:, :4] = 1.0 - other[:, :4]  # far enough from the seam to leave the encoder's view of the rest alone
    second = pipe("cat", image=other, mask=mask)
    assert (second.samples[:, :, :4] - start).abs().mean() < 0.2 * start.abs().mean()


def test_a_refused_picture_is_grey_and_the_verdict_is_recorded():
    made = tiny_pipeline(safety=MeanBrightness(low=0.99, high=1.0))("cat", n=2)
    assert torch.equal(made.tensor, torch.full_like(made.tensor, 0.5))
    assert [i["safety"]["allowed"] for i in made.record["images"]] == [False, False]
    allowed = tiny_pipeline(safety=MeanBrightness(low=0.0, high=1.0))("cat")
    assert allowed.record["images"][0]["safety"]["allowed"]


def test_callback_counts_every_step_of_every_batch(pipe):
    seen = []
    pipe("cat", n=3, batch_size=2, callback=lambda p: seen.append((p.done, p.total, p.x0.shape[0])))
    assert seen == [(i + 1, 8, 2 if i < 4 else 1) for i in range(8)]


def test_nan_from_the_network_is_told_by_step():
    pipe = tiny_pipeline()
    pipe.stages[0].denoiser.network.out[2].bias.data[0] = float("nan")
    with refused("network-not-finite", naming="step 1 of 4"):
        pipe("cat")


def test_nan_from_the_autoencoder_is_told():
    pipe = tiny_pipeline()
    pipe.stages[0].autoencoder.decoder.conv_out.bias.data[0] = float("nan")
    with refused("network-not-finite", naming="autoencoder"):
        pipe("cat")


def test_two_stages_over_two_intervals_equal_one_over_both(pipe):
    stage = pipe.stages[0]
    high = replace(stage, name="high", interval=(1.0, 0.5), feeds="latent")
    low = replace(stage, name="low", interval=(0.5, 0.0), takes="latent")
    split = tiny_pipeline()
    split.stages = [high, low]
    torch.testing.assert_close(split("cat", seed=4).samples, pipe("cat", seed=4).samples, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_stage_that_takes_an_image_refines_the_one_before_at_its_own_size():
    pipe = tiny_pipeline(steps=20)
    stage = pipe.stages[0]
    two = tiny_pipeline(steps=20)
    two.stages = [stage, replace(stage, name="fine", space=Images(64), takes="image", interval=(0.2, 0.0))]
    base = pipe("cat", seed=4).tensor
    fine = two("cat", seed=4).tensor
    assert fine.shape == (1, 3, 64, 64)
    assert torch.equal(two("cat", seed=4, stages=1).tensor, base)
    known = stage.autoencoder.encode(torch.nn.functional.interpolate(base, 64, mode="bicubic", antialias=True) * 2 - 1)
    far = [
        float((two("cat", seed=4).samples - known).square().mean()),
        float((pipe("cat", seed=4, size=64).samples - known).square().mean()),
    ]
    assert far[0] < far[1]


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"n": 0}, "request-invalid"),
        ({"n": True}, "request-invalid"),
        ({"steps": 0}, "request-invalid: steps"),
        ({"steps": 2000}, "steps-too-many: 2000"),
        ({"seed": -1}, "seed-invalid"),
        ({"seed": 2**64}, "seed-invalid"),
        ({"strength": 0.5}, "image-missing"),
        ({"mask": torch.ones(32, 32)}, "image-missing"),
        ({"image": torch.zeros(3, 32, 32), "strength": 0.0}, "strength-out-of-range: 0.0"),
        ({"image": torch.zeros(3, 32, 32), "strength": 1.5}, "strength-out-of-range: 1.5"),
        ({"image": torch.zeros(3, 16, 16)}, "image-shape-wrong"),
        ({"image": torch.full((3, 32, 32), 255.0)}, "image-values-wrong"),
        ({"image": torch.full((3, 32, 32), float("nan"))}, "image-values-wrong"),
        ({"image": "no-such-file.png"}, "file-missing"),
        ({"image": torch.zeros(3, 32, 32), "mask": torch.zeros(32, 32)}, "mask-unfit"),
        ({"negative": ["a", "b"]}, "counts-differ: negative"),
        ({"batch_size": 0}, "request-invalid: batch_size"),
        ({"stages": 2}, "stages-out-of-range"),
        ({"labels": [1]}, "labels-unread"),
        ({"prompts": []}, "prompt-type-wrong: prompts"),
        ({"prompts": [1]}, "prompt-type-wrong: prompts"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_network_runs(pipe, arguments, refusal, monkeypatch):
    monkeypatch.setattr(pipe.stages[0].denoiser.network, "forward", lambda *a, **k: pytest.fail("a network ran"))
    monkeypatch.setattr(pipe.stages[0].autoencoder, "encode", lambda *a, **k: pytest.fail("a network ran"))
    with refused(refusal, UsageError):
        pipe(**{"prompts": "cat", **arguments})


def test_a_png_carries_its_record(pipe, tmp_path):
    made = pipe(["cat", "dog"], seed=7)
    files = made.save(tmp_path / "out.png")
    assert [f.name for f in files] == ["out-0.png", "out-1.png"]
    record = read_record(files[1])
    assert record["seed"] == 7
    assert record["images"] == [{"prompt": "dog", "negative": "", "sample": 1}]
    json.dumps(made.record)


def test_saving_to_a_folder_makes_it_and_a_grid_is_one_picture(pipe, tmp_path):
    made = pipe("cat", n=4)
    assert [f.name for f in made.save(tmp_path / "new" / "folder")] == ["0000.png", "0001.png", "0002.png", "0003.png"]
    (grid,) = made.save(tmp_path / "grid.png", grid=True)
    assert Image.open(grid).size == (2 * 32 + 4, 2 * 32 + 4)


def test_nothing_half_written_is_left_where_saving_fails(pipe, tmp_path, monkeypatch):
    made = pipe("cat")

    def full_disk(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with refused("output-unwritable"):
        made.save(tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []
    with refused("output-format-unknown"):
        made.save(tmp_path / "out.txt")


def test_what_a_call_returns_are_ordinary_tensors(pipe):
    made = pipe("cat")
    for tensor in (made.tensor, made.samples):
        weight = torch.ones(1, requires_grad=True)
        (tensor * weight).sum().backward()
        tensor.zero_()
        assert not tensor.requires_grad


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_numbers_of_numpy_are_numbers(kind, pipe):
    made = pipe("cat", n=kind(2), steps=kind(2), seed=kind(3))
    assert torch.equal(made.tensor, pipe("cat", n=2, steps=2, seed=3).tensor)
    json.dumps(made.record)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [({"guidance": "3"}, "guidance-out-of-range: '3'"), ({"guidance": float("nan")}, "guidance-out-of-range"),
     ({"guidance": 1e30}, "guidance-out-of-range: 1e"), ({"guidance": True}, "guidance-out-of-range"),
     ({"n": 2.0}, "request-invalid: 2.0"),
     ({"steps": "3"}, "request-invalid: '3'"), ({"n": True}, "request-invalid"),
     ({"batch_size": 2.5}, "request-invalid: batch_size"),
     ({"strength": "0.5", "image": Image.new("RGB", (8, 8))}, "strength-out-of-range: '0.5'"),
     ({"seed": 1.5}, "seed-invalid: 1.5"), ({"seed": -1}, "seed-invalid: -1")],
)  # fmt: skip
def test_odd_numbers_of_a_call_are_typed_refusals(words, refusal, pipe):
    with refused(refusal, UsageError):
        pipe("cat", **words)


@pytest.mark.slow
def test_samples_may_have_seeds_of_their_own_and_are_what_each_draws_alone(pipe):
    made = pipe(["cat", "dog"], seed=[3, 2**64 - 1], batch_size=1)
    for i, (prompt, seed) in enumerate((("cat", 3), ("dog", 2**64 - 1))):
        assert torch.equal(made.tensor[i], pipe(prompt, seed=seed).tensor[0])
    assert [image["seed"] for image in made.record["images"]] == [3, 2**64 - 1]
    one_a_sample = pipe("cat", n=2, seed=[3, 4]).tensor
    assert torch.allclose(one_a_sample[1], pipe("cat", seed=4).tensor[0], atol=1e-6)
    both = pipe(["cat", "dog"], n=2, seed=[3, 4]).tensor  # one a prompt
    assert torch.allclose(both[2:], pipe("dog", n=2, seed=4).tensor, atol=1e-6)
    with refused("counts-differ", naming="3 seeds for 2 prompts with 2 images each"):
        pipe(["cat", "dog"], n=2, seed=[1, 2, 3])
    with refused("seed-invalid", UsageError):
        pipe(["cat", "dog"], seed=[1, -2])


@pytest.mark.parametrize("mask", [(200, 100), (64, 65), (10, 30)])
def test_a_mask_of_another_shape_than_its_image_is_refused(mask, pipe):
    image = Image.new("RGB", (100, 100), "red")
    white = Image.new("L", mask, 255)
    if mask == (64, 65):  # a pixel's rounding
        assert len(pipe("cat", image=image, mask=white)) == 1
        return
    with refused("mask-unfit", naming=f"{mask[0]}"):
        pipe("cat", image=image, mask=white)
