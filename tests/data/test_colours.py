"""Colours by name, and images in another one."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.data import colours
from zoo.data.colours import COLOURS, apart, difference, dominant, from_lab, name_of, recoloured, to_lab

HUES = [name for name, colour in COLOURS.items() if colour.width]
ANY = np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)


def drawing(fill, stem=(90, 60, 40), size=32):
    """A disc with a highlight, a black outline and a stem, on white: uint8 (3, size, size)."""
    image = np.full((size, size, 3), 255, dtype=np.uint8)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(x, y)
    image[radius < 12] = (0, 0, 0)
    image[radius < 11] = fill
    image[np.hypot(x + 4, y + 4) < 2] = (255, 255, 255)
    image[:4, size // 2 - 1 : size // 2 + 1] = stem
    return np.moveaxis(image, -1, 0).copy()


def rgb(name):
    """A named colour as 8-bit sRGB."""
    colour = COLOURS[name]
    a, b = colour.chroma * np.cos(np.radians(colour.hue)), colour.chroma * np.sin(np.radians(colour.hue))
    return tuple(int(v) for v in from_lab(np.array([[[colour.lightness, a, b]]]))[:, 0, 0])


@pytest.mark.parametrize(
    ("srgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)), ((0, 0, 0), (0.0, 0.0, 0.0)), ((128, 128, 128), (53.585, 0.0, 0.0)),
        ((255, 0, 0), (53.241, 80.092, 67.203)), ((0, 255, 0), (87.735, -86.183, 83.179)),
        ((0, 0, 255), (32.297, 79.188, -107.860)),
    ],
)  # fmt: skip
def test_lab_is_that_of_srgb_under_d65(srgb, lab):
    """The well-known values of sRGB's corners (Lindbloom's calculator, D65)."""
    image = np.array(srgb, dtype=np.uint8).reshape(3, 1, 1)
    assert np.allclose(to_lab(image)[0, 0], lab, atol=0.02)
    assert np.array_equal(from_lab(np.array([[lab]])), image)


def test_lab_and_back_is_the_image():
    assert np.array_equal(from_lab(to_lab(ANY)), ANY)


def test_hues_are_apart_the_short_way_round():
    assert apart(350.0, 10.0) == 20.0
    assert apart(np.array([0.0, 180.0, 359.0]), 1.0).tolist() == [1.0, 179.0, 2.0]


@pytest.mark.parametrize("name", HUES)
def test_a_drawing_in_a_named_colour_has_that_name(name):
    found = dominant(drawing(rgb(name)))
    assert name_of(found) == name
    assert 0.6 < found.share < 1.0
    assert difference(found, name) < 5.0  # 8 bits and what sRGB holds
    assert difference(found, "blue" if name != "blue" else "yellow") > 35.0


def test_a_hue_on_both_sides_of_zero_is_one():
    image = drawing(rgb("pink"))
    found = dominant(image)
    assert apart(found.hue, COLOURS["pink"].hue) < 3.0
    half = drawing((235, 60, 90))
    image[:, :, 16:] = half[:, :, 16:]
    assert dominant(image).share > 0.6


@pytest.mark.parametrize("fill", [(128, 128, 128), (255, 255, 255), (0, 0, 0)])
def test_what_has_no_hue_has_no_dominating_one(fill):
    assert dominant(drawing(fill, stem=fill)) is None


def test_colours_between_names_have_none():
    assert name_of(dominant(drawing((40, 160, 165)))) is None  # teal
    assert name_of(dominant(drawing((60, 10, 12)))) is None


@pytest.mark.parametrize("name", ["black", "grey", "white"])
def test_what_is_made_grey_keeps_its_shading_and_is_seen_on_paper(name):
    image = drawing(rgb("red"), stem=(0, 0, 0))
    lab = to_lab(recoloured(image, dominant(image), name))
    filled = (image == np.array(rgb("red"), dtype=np.uint8)[:, None, None]).all(axis=0)
    assert np.allclose(lab[filled][:, 0], COLOURS[name].lightness, atol=2.0)
    assert np.hypot(lab[filled][:, 1], lab[filled][:, 2]).max() < 8.0
    assert lab[filled][:, 0].max() < 97.0


@pytest.mark.parametrize("before", ["red", "yellow", "blue"])
@pytest.mark.parametrize("after", HUES)
def test_recolouring_changes_the_dominating_colour_alone(before, after):
    image = drawing(rgb(before), stem=rgb("blue") if before != "blue" else rgb("red"))
    found = dominant(image)
    changed = recoloured(image, found, after)
    assert name_of(dominant(changed)) == after
    same = (image == 255).all(axis=0) | (image == 0).all(axis=0)  # paper, highlight and outline
    assert np.abs(changed.astype(int) - image)[:, same].max() <= 1
    assert np.abs(changed.astype(int) - image)[:, :4, 15:17].max() <= 1  # the stem


def test_shading_stays_in_order():
    image = np.full((3, 8, 60), 255, dtype=np.uint8)
    light = np.linspace(30, 80, 60)
    image[:] = from_lab(np.stack([light, np.full(60, 35.0), np.full(60, 20.0)], -1)[None])
    changed = to_lab(recoloured(image, dominant(image), "yellow"))[0, :, 0]
    assert (np.diff(changed) > -0.7).all()  # rounding to 8 bits apart
    assert changed[-1] - changed[0] > 30


def test_every_colour_has_a_word():
    assert set(COLOURS) < colours.WORDS
