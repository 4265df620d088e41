"""The colour score, on colours whose names are beyond doubt and on the conversion's known values."""

import numpy as np
import pytest
import torch

from tests.refusals import refused
from zoo.evaluation.metrics.colour import COLOURS, background, colour_of_name, colour_of_pixels, colour_shares, lab
from zoo.schema.errors import UsageError

KNOWN = {
    "red": [(220, 30, 30), (150, 10, 20)], "orange": [(255, 140, 0), (250, 160, 40)],
    "yellow": [(255, 220, 40), (255, 255, 0)], "green": [(0, 160, 70), (120, 180, 85)],
    "blue": [(0, 0, 255), (60, 140, 220)], "purple": [(130, 60, 180), (170, 140, 215)],
    "pink": [(255, 105, 180), (255, 190, 200)], "brown": [(110, 70, 50), (140, 85, 60)],
    "black": [(0, 0, 0), (40, 36, 48)], "grey": [(128, 128, 128), (150, 155, 160)], "white": [(255, 255, 255)],
}  # fmt: skip


def filled(colour, *, size=32, box=(8, 24)):
    image = torch.full((3, size, size), 255, dtype=torch.uint8)
    image[:, box[0] : box[1], box[0] : box[1]] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return image


def test_lab_has_the_published_values_of_srgb_primaries():
    pixels = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [119, 119, 119]], dtype=torch.uint8)
    found = lab(pixels.T[:, :, None])[:, :, 0].T
    expected = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0], [50.03, 0, 0]]
    assert np.allclose(found.numpy(), expected, atol=0.05)


@pytest.mark.parametrize("name", COLOURS)
def test_a_pixel_is_called_what_anybody_would(name):
    for colour in KNOWN[name]:
        pixel = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
        assert COLOURS[int(colour_of_pixels(pixel))] == name, colour


def test_a_share_is_of_what_is_drawn():
    images = torch.stack([filled((220, 30, 30)), filled((0, 0, 255))])
    assert colour_shares(images, ["red", "red"]).tolist() == [1.0, 0.0]
    half = filled((220, 30, 30))
    half[:, 8:16, 8:24] = torch.tensor([0, 0, 255], dtype=torch.uint8)[:, None, None]
    assert colour_shares(half[None], ["red"]).tolist() == [0.5]
    assert colour_shares(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8), ["white"]).tolist() == [0.0]


def test_white_counts_inside_a_drawing_where_it_was_requested_and_the_paper_never():
    ring = filled((0, 0, 0), box=(4, 28))
    ring[:, 8:24, 8:24] = 255
    inside = 256 / (24 * 24)
    assert colour_shares(ring[None], ["white"])[0] == pytest.approx(inside)
    assert colour_shares(ring[None], ["black"])[0] == 1.0  # white inside is none of the pixels that aren't white
    assert int(background(ring[None]).sum()) == 32 * 32 - 24 * 24


def test_names_that_begin_with_a_colour_say_it():
    assert colour_of_name("red apple") == "red"
    assert colour_of_name("Gray wolf") == "grey"
    assert colour_of_name("orange") is None
    assert colour_of_name("person, red hair") is None


def test_unknown_colours_and_wrong_counts_are_refused():
    with refused("choice-unknown", UsageError):
        colour_shares(filled((0, 0, 0))[None], ["mauve"])
    with refused("counts-differ"):
        colour_shares(filled((0, 0, 0))[None], [])
