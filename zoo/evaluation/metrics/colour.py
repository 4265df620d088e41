"""The colour score: whether the requested colour covers most of what was drawn.

Each pixel is given one of eleven colour names (Berlin & Kay 1969, "Basic color terms") by its place in CIELAB
(CIE 15, D65 white): lightness L in [0, 100], chroma C and hue angle h in degrees. The borders below were set so that
real emoji whose name says their colour get it; the rate at which they do stands beside every score, and is its ceiling.

What is as white as paper and hangs together with the border of the image is background and never counts. Of the rest,
the pixels that are not white are looked at, except where white was requested: then white in the drawing counts too.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from zoo.data.colours import SRGB_TO_XYZ, WHITE
from zoo.schema.errors import UsageError

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white")
MOST = 0.5  # of the pixels looked at, which the requested colour must exceed
_PAPER = 97.0  # lightness from which on white can be the background
# In float32, as every score was taken; float64 (`zoo.data.colours.to_lab`) names ten of the 2^24 colours otherwise.
_TO_XYZ, _WHITE = (torch.tensor(values, dtype=torch.float32) for values in (SRGB_TO_XYZ, WHITE))
# Borders of hue, in degrees of h: red up to orange, up to yellow, up to green, and so on round the circle.
_RED, _ORANGE, _YELLOW, _GREEN, _BLUE, _PURPLE = 43.0, 75.0, 107.0, 190.0, 294.0, 335.0


def lab(images: Tensor) -> Tensor:
    """uint8 sRGB (..., 3, H, W) -> CIELAB (..., 3, H, W) float32: L, a, b (IEC 61966-2-1, then CIE 15)."""
    x = images.float() / 255
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,...jhw->...ihw", _TO_XYZ, linear) / _WHITE[:, None, None]
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    fx, fy, fz = f.unbind(dim=-3)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def colour_of_pixels(images: Tensor) -> Tensor:
    """uint8 sRGB (..., 3, H, W) -> the place of each pixel's name in `COLOURS`, (..., H, W) int64."""
    light, a, b = lab(images).unbind(dim=-3)
    chroma = torch.hypot(a, b)
    hue = torch.rad2deg(torch.atan2(b, a)) % 360
    from_red = torch.where(hue < _GREEN, hue, hue - 360)  # pinks and reds on both sides of 0

    def at(name: str) -> Tensor:
        return torch.tensor(COLOURS.index(name))

    name = torch.where(hue < _ORANGE, at("orange"), at("yellow"))
    name = torch.where(hue < _RED, at("red"), name)
    name = torch.where((hue >= _YELLOW) & (hue < _GREEN), at("green"), name)
    name = torch.where((hue >= _GREEN) & (hue < _BLUE), at("blue"), name)
    # sRGB's own blue has the hue of violets, and is the most colourful of them.
    vivid = (hue >= _BLUE) & (hue < 312) & (chroma > 95)
    name = torch.where((hue >= _BLUE) & (hue < _PURPLE), at("purple"), name)
    name = torch.where(vivid, at("blue"), name)
    name = torch.where((hue >= _PURPLE), at("pink"), name)
    pale_red = (from_red >= -2) & (hue < _RED) & (light >= 68)
    name = torch.where(pale_red, at("pink"), name)
    deep_pink = (hue >= 350) & (light < 48)
    name = torch.where(deep_pink, at("red"), name)
    # Dark orange is brown, and so is a dull one; dark yellow too.
    dull = (chroma < 45) & (light < 72)
    brown = (hue >= 30) & (hue < 90) & ((light < 52) | dull) & ~((hue < _RED) & (chroma > 45))
    name = torch.where(brown, at("brown"), name)
    # Drawn black is often bluish, and drawn white a pale grey or lilac: paper is the only pure white.
    name = torch.where(chroma < 10, at("grey"), name)
    name = torch.where(((light < 42) & (chroma < 12)) | ((light < 36) & (chroma < 26) & ~brown), at("black"), name)
    return torch.where(((light >= 80) & (chroma < 8)) | ((light >= 84) & (chroma < 16)), at("white"), name)


def background(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> what is as white as paper and hangs together with the border, (N, H, W) bool."""
    light, a, b = lab(images).unbind(dim=-3)
    white = ((light >= _PAPER) & (torch.hypot(a, b) < 4)).numpy()
    found = np.zeros_like(white)
    for i, mask in enumerate(white):
        labels: np.ndarray = ndimage.label(mask)[0]  # type: ignore[index]
        edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        found[i] = np.isin(labels, edge[edge > 0])
    return torch.from_numpy(found)


def colour_shares(images: Tensor, colours: list[str]) -> Tensor:
    """For each image, the share that its requested colour covers: uint8 (N, 3, H, W), N names -> (N,) in [0, 1].

    0 where nothing is drawn. UsageError for a colour that isn't in `COLOURS`, or another number of them.
    """
    if len(colours) != len(images):
        raise UsageError(f"{len(images)} images have {len(colours)} colours; give one for each", code="counts-differ")
    for colour in colours:
        if colour not in COLOURS:
            raise UsageError(
                f"'{colour}' is no colour that is known; use one of {', '.join(COLOURS)}", code="choice-unknown"
            )
    if len(images) == 0:
        return torch.zeros(0)
    names, drawn = colour_of_pixels(images), ~background(images)
    wanted = torch.tensor([COLOURS.index(c) for c in colours])[:, None, None]
    white = COLOURS.index("white")
    looked_at = drawn & ((names != white) | (wanted == white))
    covered = (looked_at & (names == wanted)).flatten(1).sum(dim=1)
    return covered / looked_at.flatten(1).sum(dim=1).clamp(min=1)


def colour_of_name(name: str) -> str | None:
    """The colour that a name begins with, "red" of "red apple"; None where it begins with none, or is nothing else."""
    first, _, rest = name.lower().partition(" ")
    first = "grey" if first == "gray" else first
    return first if first in COLOURS and rest else None
