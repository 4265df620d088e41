"""Colours by name: CIELAB, the hue that dominates an image, and an image in another colour.

A colour name is a region of hue, lightness and chroma in CIELAB (CIE 15:2004, D65); the regions' middles are those of
plainly coloured emoji (red, orange, ... hearts, circles and squares) in eight drawing styles. Recolouring turns the
pixels of the dominating hue alone, so that a green apple keeps its brown stem, and maps lightness so that white stays
white, black stays black and shading stays in order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Linear sRGB (IEC 61966-2-1) to XYZ, and XYZ of the white D65.
SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = SRGB_TO_XYZ / WHITE[:, None]
_TO_RGB = np.linalg.inv(_TO_XYZ)
_EDGE = 6.0 / 29.0

GREYEST = 20.0  # chroma from which a pixel has a hue that is seen
NEAR, FAR = 35.0, 55.0  # degrees of hue: as the dominating one up to NEAR, untouched from FAR on


class Colour(NamedTuple):
    """A colour with a name: its middle, and the half-width of its hue in degrees; lightness from `low` to `high`.

    One without width has no hue: images are recoloured to it, and never classified as it.
    """

    lightness: float
    chroma: float
    hue: float
    width: float
    low: float
    high: float


COLOURS = {
    "red": Colour(53, 75, 28, 17, 35, 64),
    "orange": Colour(67, 78, 62, 9, 55, 80),
    "yellow": Colour(84, 74, 86, 11, 72, 97),
    "green": Colour(72, 62, 132, 32, 35, 92),
    "blue": Colour(60, 48, 255, 22, 30, 80),
    "purple": Colour(50, 60, 302, 14, 25, 72),
    "pink": Colour(72, 48, 347, 15, 58, 88),
    "brown": Colour(44, 38, 53, 20, 20, 50),
    "black": Colour(27, 4, 270, 0, 0, 40),
    "grey": Colour(62, 4, 270, 0, 40, 80),
    "white": Colour(91, 4, 270, 0, 80, 100),
}
# Every word for a colour that a name may hold, also those that nothing is recoloured to.
WORDS = frozenset({*COLOURS, "gray", "golden", "gold", "silver", "light", "dark"})


class Dominant(NamedTuple):
    """The hue most of an image has: its medians, and the share of the pixels that aren't white which have it."""

    lightness: float
    chroma: float
    hue: float
    share: float


def to_lab(image: np.ndarray) -> np.ndarray:
    """uint8 sRGB (3, H, W) -> CIELAB (H, W, 3): L* in [0, 100], a*, b*."""
    rgb = np.moveaxis(image, 0, -1).astype(np.float64) / 255.0
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T
    f = np.where(xyz > _EDGE**3, np.cbrt(xyz), xyz / (3.0 * _EDGE**2) + 4.0 / 29.0)
    return np.stack([116.0 * f[..., 1] - 16.0, 500.0 * (f[..., 0] - f[..., 1]), 200.0 * (f[..., 1] - f[..., 2])], -1)


def from_lab(lab: np.ndarray) -> np.ndarray:
    """CIELAB (H, W, 3) -> uint8 sRGB (3, H, W), values outside of sRGB clipped."""
    y = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([y + lab[..., 1] / 500.0, y, y - lab[..., 2] / 200.0], -1)
    xyz = np.where(f > _EDGE, f**3, 3.0 * _EDGE**2 * (f - 4.0 / 29.0))
    linear = np.clip(xyz @ _TO_RGB.T, 0.0, 1.0)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)
    return np.ascontiguousarray(np.moveaxis(np.rint(rgb * 255.0).astype(np.uint8), -1, 0))


def apart(hue: np.ndarray | float, other: float) -> np.ndarray:
    """Degrees between hues, from 0 to 180."""
    return np.abs((np.asarray(hue) - other + 180.0) % 360.0 - 180.0)


def _polar(lab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chroma and hue in degrees, each (H, W)."""
    return np.hypot(lab[..., 1], lab[..., 2]), np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360.0


def _not_white(lab: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    return (lab[..., 0] < 93.0) | (chroma > 8.0)


def dominant(image: np.ndarray) -> Dominant | None:
    """The dominating hue of a uint8 image (3, H, W) on white; None for one without any pixel that has a hue."""
    lab = to_lab(image)
    chroma, hue = _polar(lab)
    shown = _not_white(lab, chroma)
    coloured = shown & (chroma > GREYEST)
    if not coloured.any():
        return None
    bins = np.bincount((hue[coloured] // 5.0).astype(int) % 72, minlength=72)
    sums = np.concatenate([[0], np.concatenate([bins[-4:], bins, bins[:4]]).cumsum()])
    window = sums[9:] - sums[:-9]  # 45 degrees around the middle of bin k
    middle = 5.0 * float(window.argmax()) + 2.5
    of_it = coloured & (apart(hue, middle) <= NEAR)
    turned = (hue[of_it] - middle + 180.0) % 360.0 - 180.0
    return Dominant(
        lightness=float(np.median(lab[..., 0][of_it])), chroma=float(np.median(chroma[of_it])),
        hue=(middle + float(np.median(turned))) % 360.0, share=float(of_it.sum() / shown.sum()),
    )  # fmt: skip


def name_of(found: Dominant) -> str | None:
    """The name of a dominating colour; None where it lies between names (teal, pale or dark)."""
    for name, colour in COLOURS.items():
        if not colour.width:
            continue
        near = apart(found.hue, colour.hue) <= colour.width and colour.low <= found.lightness <= colour.high
        if near and found.chroma >= 0.6 * colour.chroma:
            return name
    return None


def difference(found: Dominant, name: str) -> float:
    """The distance in CIELAB (CIE 1976) of a dominating colour from the middle of a named one."""
    colour = COLOURS[name]
    squares = found.chroma**2 + colour.chroma**2
    between = 2.0 * found.chroma * colour.chroma * np.cos(np.radians(apart(found.hue, colour.hue)))
    return float(np.sqrt((found.lightness - colour.lightness) ** 2 + squares - between))


def recoloured(image: np.ndarray, found: Dominant, name: str) -> np.ndarray:
    """A uint8 image (3, H, W) with the pixels of its dominating colour in a named one."""
    colour = COLOURS[name]
    lab = to_lab(image)
    chroma, hue = _polar(lab)
    light = lab[..., 0]
    weight = np.clip((FAR - apart(hue, found.hue)) / (FAR - NEAR), 0.0, 1.0)
    stretch = min(colour.chroma / found.chroma, 1.8)
    middle = float(np.clip(found.lightness, 5.0, 95.0))
    mapped = np.interp(light, [0.0, middle, 100.0], [0.0, colour.lightness, 100.0])
    # Grey has a hue by rounding alone: its lightness stays.
    seen = weight * np.clip(chroma / GREYEST, 0.0, 1.0)
    light = light + seen * (mapped - light)
    chroma = chroma * (1.0 + weight * (stretch - 1.0))
    radians = np.radians(hue + weight * ((colour.hue - found.hue + 180.0) % 360.0 - 180.0))
    return from_lab(np.stack([light, chroma * np.cos(radians), chroma * np.sin(radians)], -1))
