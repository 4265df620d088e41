"""Strong augmentation: by address, within its limits, and never against what a caption says."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.refusals import refused
from zoo.data.distortions import SHARES, Distortion, blurred
from zoo.data.pixels import from_uint8
from zoo.diffusion.draws import stream
from zoo.schema.errors import ConfigError

ALL = {
    "rotation": 25, "shear": 12, "zoom": 0.35, "stretch": 0.3, "shift": 0.1, "perspective": 0.5, "mirror": 0.5,
    "colour": 0.8, "hue": 0.15, "shrink": 0.5, "shrink_to": 16, "blur": 0.5, "noise": 0.5, "cutout": 0.5,
    "wander": 0.7, "mottle": 0.5, "sharpen": 0.5,
}  # fmt: skip


def images(count=6, size=40):
    """A coloured block on white, each somewhere else."""
    made = np.full((count, 3, size, size), 255, np.uint8)
    for i in range(count):
        made[i, :, 8 + i : 20 + i, 10:24] = np.array([200, 40, 10 * i])[:, None, None]
    return torch.from_numpy(made)


def distorted(block, x, *, samples=None, size=32, mirror=True, recolour=True):
    samples = range(len(x)) if samples is None else samples
    return Distortion.of(block)(
        x, [stream(3, "distortion", i) for i in samples], size=size, may_mirror=np.full(len(x), mirror),
        may_recolour=np.full(len(x), recolour),
    )  # fmt: skip


def test_an_image_is_distorted_by_its_sample_and_not_by_its_batch():
    x = images()
    whole = distorted(ALL, x)
    assert whole.shape == (6, 3, 32, 32)
    assert whole.abs().max() <= 1
    assert torch.equal(whole, distorted(ALL, x))
    alone = torch.cat([distorted(ALL, x[i : i + 1], samples=[i]) for i in range(6)])
    assert torch.allclose(whole, alone, atol=1e-5)
    assert not torch.allclose(whole, distorted(ALL, x, samples=range(6, 12)), atol=0.1)


def test_nothing_asked_for_is_nothing_done():
    x = images()
    assert torch.allclose(distorted({}, x, size=40), from_uint8(x), atol=1e-5)


@pytest.mark.parametrize("name", [*SHARES, "rotation", "shear", "zoom", "stretch", "shift"])
def test_each_part_changes_images_alone(name):
    x = images()
    plain = {"grey": {"colour": 1.0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "grey": 1.0}}
    block = plain.get(name, {name: {"rotation": 90, "shear": 40, "zoom": 1.0, "shift": 0.3}.get(name, 0.99)})
    assert not torch.allclose(distorted(block, x, size=40), from_uint8(x), atol=0.05)


def test_white_stays_white_however_the_hand_wanders():
    white = torch.full((4, 3, 40, 40), 255, dtype=torch.uint8)
    block = {"wander": 1.0, "wander_by": 0.1, "mottle": 1.0, "sharpen": 1.0}
    assert torch.allclose(distorted(block, white, size=40), torch.ones(4, 3, 40, 40), atol=1e-5)


def test_the_outside_is_white():
    red = torch.tensor([200, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(12, 3, 40, 40).contiguous()
    moved = distorted({"shift": 0.45}, red)
    outside = (moved > 0.99).all(dim=1)
    assert outside.flatten(1).any(dim=1).all()
    inside = (moved - from_uint8(red)[:, :, :1, :1]).abs().amax(dim=1) < 0.01
    assert (inside | outside).float().mean() > 0.9  # the rest is the edge between the two


def test_what_may_not_be_mirrored_or_recoloured_is_not():
    x = images()
    assert torch.allclose(distorted({"mirror": 1.0}, x, size=40, mirror=False), from_uint8(x), atol=1e-5)
    assert torch.allclose(distorted({"mirror": 1.0}, x, size=40), from_uint8(x).flip(-1), atol=1e-5)
    hue = {"colour": 1.0, "brightness": 0, "contrast": 0, "saturation": 0.5, "hue": 0.3, "grey": 0.5}
    assert torch.allclose(distorted(hue, x, size=40, recolour=False), from_uint8(x), atol=1e-5)
    assert not torch.allclose(distorted(hue, x, size=40), from_uint8(x), atol=0.1)


def test_rows_that_speak_of_colour_or_direction_stay_true():
    distortion = Distortion(mirror=0.5, flip_unless=["group=symbols"])
    row = {"text": "fish, flat style", "name": "fish", "keywords": ["Pisces"], "group": "animals"}
    assert distortion.may_mirror(row)
    assert distortion.may_recolour(row)
    assert not distortion.may_recolour({**row, "name": "blue heart", "text": "blue heart, flat style"})
    assert not distortion.may_recolour({**row, "keywords": ["orange"]})
    assert not distortion.may_mirror({**row, "name": "left arrow"})
    assert not distortion.may_mirror({**row, "group": "symbols"})


def test_a_turn_of_hue_keeps_luminance():
    x = images()
    turned = distorted(
        {"colour": 1.0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.02, "grey": 0}, x, size=40
    )
    weights = torch.tensor([0.299, 0.587, 0.114])
    before, after = (torch.einsum("c,nchw->nhw", weights, y) for y in (from_uint8(x), turned))
    assert torch.allclose(before, after, atol=0.02)


def test_a_blur_is_a_gaussian_of_each_images_own_width():
    x = torch.zeros(2, 3, 31, 31)
    x[:, :, 15, 15] = 1
    out = blurred(x, np.array([1.0, 2.0]))
    assert torch.allclose(out.sum(dim=(2, 3)), torch.ones(2, 3), atol=1e-4)
    across = torch.arange(31.0) - 15
    for image, sigma in zip(out, (1.0, 2.0), strict=True):
        variance = (image[0].sum(dim=0) * across**2).sum()
        assert variance == pytest.approx(sigma**2, rel=0.03)


def test_shrinking_goes_to_the_sizes_that_are_told():
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8))
    small = distorted({"shrink": 1.0, "shrink_to": 16}, x)
    rebuilt = F.interpolate(F.interpolate(from_uint8(x), (16, 16), mode="area"), (32, 32), mode="bicubic").clamp(-1, 1)
    assert (small - rebuilt).abs().amax(dim=(1, 2, 3)).lt(1e-4).any()
    assert not torch.allclose(small, from_uint8(x), atol=0.3)


@pytest.mark.parametrize(
    ("block", "refusal"),
    [
        ({"rotaton": 3}, "argument-unknown: rotation"),
        ({"rotation": 180}, "number-out-of-range: below"),
        ({"blur": 1.5}, "number-out-of-range: distortion.blur is 1.5"),
        ({"hue": 0.6}, "number-out-of-range: 0.5"),
        ({"shrink_to": 8}, "number-out-of-range: 16"),
        ({"noise": "much"}, "argument-type-wrong"),
        ({"cutout": True}, "argument-type-wrong"),
        ({"noise_std": float("nan")}, "number-out-of-range: below"),
        ({"flip_unless": "clock"}, "argument-type-wrong"),
    ],
)
def test_what_cant_be_meant_is_refused(block, refusal):
    with refused(refusal, ConfigError):
        Distortion.of(block)
