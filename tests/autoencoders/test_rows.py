"""A decoder by rows gives the whole decode's image in less memory; by tiles it is diffusers' tiled decode."""

import pytest
import torch
import torch.nn.functional as F

from tests.autoencoders.test_kl import CONFIGS, pair
from tests.networks.random_weights import normal, randomise, relative
from zoo.autoencoders import rows, tiles
from zoo.autoencoders.kl import AutoencoderKL, Decoder
from zoo.autoencoders.vq import AutoencoderVQ
from zoo.bench.needs import Live

EXACT = 1e-5  # in float32, of the image's largest value


def coder(name="sd-like", dtype=torch.float32):
    return randomise(AutoencoderKL(**CONFIGS[name])).to(dtype)


@torch.inference_mode()
def both(model, z):
    """The image as a whole, and by rows."""
    model.decoder.by = "whole"
    whole = model.decode(z)
    model.decoder.by = "rows"
    return whole, model.decode(z)


def apart(model, z):
    whole, by_rows = both(model, z)
    assert by_rows.shape == whole.shape
    return relative(by_rows, whole)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("held", "chunk"), [(rows.HELD, rows.CHUNK), (rows.HELD, 3000), (0.0, 3000), (9.0, 3000)])
def test_by_rows_the_image_is_that_of_the_whole_decode(name, held, chunk, monkeypatch):
    """Whatever is kept between passes, and however few rows are computed at once."""
    monkeypatch.setattr(rows, "HELD", held)
    monkeypatch.setattr(rows, "CHUNK", chunk)
    model = coder(name)
    assert apart(model, normal(2, model.channels, 9, 5).float()) < EXACT


def test_a_quantising_autoencoder_decodes_by_rows_too(monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 3000)
    model = randomise(AutoencoderVQ(width=16, mult=(1, 2), blocks=1, groups=8, codes=32)).float()
    assert apart(model, normal(1, 3, 10, 6).float()) < EXACT


def test_in_half_precision_it_is_as_near_to_float32_as_the_whole_decode(monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 3000)
    z = normal(1, 4, 12, 8)
    right = both(coder(dtype=torch.float64), z)[0]
    whole, by_rows = both(coder(dtype=torch.bfloat16), z.bfloat16())
    errors = [float((image.double() - right).abs().mean()) for image in (whole, by_rows)]
    assert errors[1] < 1.25 * errors[0]


def without_neighbours(monkeypatch):
    """Each chunk's convolutions see zeros where its neighbours' rows are."""

    def alone(rows, layer, height):
        return lambda a, b: F.conv2d(rows(a, b), layer.weight, layer.bias, padding=1)

    monkeypatch.setattr(rows, "convolved", alone)


def chunks_alone(monkeypatch):
    """Each norm takes the moments of the chunk that was seen last."""
    see = rows.Moments.see

    def last(self, seen):
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        see(self, seen)

    monkeypatch.setattr(rows.Moments, "see", last)


@pytest.mark.parametrize("flip", [without_neighbours, chunks_alone], ids=lambda f: f.__name__)
def test_the_comparison_fails_when_one_switch_is_flipped(flip, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 3000)
    model, z = coder(), normal(1, 4, 9, 5).float()
    assert apart(model, z) < EXACT
    flip(monkeypatch)
    assert apart(model, z) > 10 * EXACT


def peak(model, z):
    """The most bytes that are alive at once, in a decode on the meta device."""
    live = Live([*model.parameters()])
    with torch.no_grad(), live.watching([]) as seen:
        model.decode(z)
    return seen.peak


@pytest.mark.parametrize("size", [32, 64])
def test_by_rows_it_takes_what_is_planned_and_far_less_than_the_whole(size, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK", 20_000)
    with torch.device("meta"):
        model = AutoencoderKL(width=32, mult=(1, 2, 4, 4), blocks=2, groups=8).to(torch.bfloat16)
        z = torch.empty(1, 4, size, size, dtype=torch.bfloat16)
    whole = peak(model, z)
    model.decoder.by = "rows"
    found, image = peak(model, z), 3 * (8 * size) ** 2 * 2
    assert found <= rows.peak_bytes(model.decoder, (size, size), 2) + image
    assert found < 0.45 * whole


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 24), (16, 16), (17, 33)])
@torch.inference_mode()
def test_tiles_are_those_of_diffusers(shape, monkeypatch):
    ours, theirs = pair("sd-like")
    monkeypatch.setattr(tiles, "TILE", 16)
    theirs.enable_tiling()
    theirs.tile_latent_min_size, theirs.tile_sample_min_size = 16, 128
    z = normal(2, 4, *shape).double()
    wanted = theirs.decode(z / theirs.config.scaling_factor).sample
    ours.decoder.by = "tiles"
    assert relative(ours.decode(z), wanted) < 1e-8
    if max(shape) > 16:
        ours.decoder.by = "whole"
        assert relative(ours.decode(z), wanted) > 1e-4  # tiles change the image


def test_gradients_go_through_the_whole_decoder():
    decoder = Decoder(in_channels=4, out_channels=3, width=8, mult=(1, 2), blocks=1, attention_levels=(), groups=4)
    decoder.by = "rows"
    z = torch.randn(1, 4, 4, 4, requires_grad=True)
    decoder(z).sum().backward()
    assert z.grad is not None
