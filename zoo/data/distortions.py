"""Strong augmentation of whole batches by address: images that are hard to memorise.

Each image is turned, zoomed, sheared, shifted and seen in perspective, recoloured, made smaller and enlarged again,
blurred, made noisy, and has parts cut out; the surroundings are white, as the emoji's are. Everything is drawn from
the streams that the caller gives, one an image and keyed by (seed, purpose, sample): a resumed run sees the same.

What a caption says stays true: an image is mirrored only where `zoo.data.augmentation` allows it, and where a row's
name, caption or keywords hold a word of `COLOURS`, its hue and saturation stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data import unsteady
from zoo.data.augmentation import Augment, words_of
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import within

# Words by which a caption speaks of hue or of its absence.
COLOURS = frozenset({
    "red", "orange", "yellow", "green", "blue", "purple", "violet", "pink", "brown", "black", "white", "grey", "gray",
    "gold", "golden", "silver", "bronze", "cyan", "magenta", "turquoise", "rainbow", "color", "colour", "colors",
    "colours", "colorful", "colourful", "dark", "light", "blond", "blonde", "rose",
})  # fmt: skip
# Of the images:
SHARES = (
    "mirror", "perspective", "wander", "colour", "grey", "mottle", "blur", "shrink", "sharpen", "noise", "cutout",
)  # fmt: skip
SOFT = 1.5  # sigma of the blur that sharpening moves away from, in pixels of the network's size
SMALLEST = 16  # pixels a side of an image that `shrink` leaves
DRAWS = 40  # uniform numbers an image takes, whatever is done with them
# RGB <-> YIQ, in which a turn around the first axis is a turn of hue.
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """How strongly a batch of images is distorted; 0 switches a part off.

    Args:
        rotation, shear: largest angles, in degrees, below 180 and 60.
        zoom: images are scaled by a factor from 1 / (1 + zoom) to 1 + zoom, below 3; stretch: the same for the ratio of
            the sides, below 1.
        shift: largest shift, a share of the side, below 0.5.
        perspective: share of the images seen in perspective, tilted by up to `tilt`, below 0.5.
        mirror: share mirrored, of those that may be; flip_unless: as in `zoo.data.augmentation`.
        colour: share recoloured, by up to `brightness` (of the range), `contrast` and `saturation` (shares of
            themselves), below 1, and `hue` (of the circle), at most 0.5; grey: share made grey, of the recoloured.
        shrink: share made smaller, to `shrink_to` pixels a side at the least, and enlarged again.
        blur: share blurred, by a Gaussian of up to `blur_sigma` pixels of the network's size, below 8.
        wander: share whose outlines wander, by up to `wander_by` of the side, below 0.2 (`zoo.data.unsteady`).
        mottle: share whose tones differ from place to place, by up to `mottle_depth`, below 1.
        sharpen: share sharpened after shrinking and blur, by up to `sharpen_by` times what a blur takes, below 10.
        noise: share made noisy, by up to `noise_std`, below 1, in [-1, 1].
        cutout: share of which up to three boxes are cut, each with sides up to `cutout_side` of the image, below 1.
    """

    rotation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shift: float = 0.0
    perspective: float = 0.0
    tilt: float = 0.2
    mirror: float = 0.0
    flip_unless: Sequence[str] = ()
    colour: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.4
    saturation: float = 0.6
    hue: float = 0.1
    grey: float = 0.1
    shrink: float = 0.0
    shrink_to: int = 24
    blur: float = 0.0
    blur_sigma: float = 2.0
    wander: float = 0.0
    wander_by: float = 0.04
    mottle: float = 0.0
    mottle_depth: float = 0.3
    sharpen: float = 0.0
    sharpen_by: float = 3.0
    noise: float = 0.0
    noise_std: float = 0.3
    cutout: float = 0.0
    cutout_side: float = 0.4

    @classmethod
    def of(cls, block: Mapping[str, Any]) -> Distortion:
        """From a recipe's block; ConfigError for an unknown key or a value out of range."""
        known = [f.name for f in fields(cls)]
        for key, value in block.items():
            if key not in known:
                raise ConfigError(f"distortion: there is no '{key}'; use {', '.join(known)}", code="argument-unknown")
            if key != "flip_unless" and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"distortion.{key} is {value!r}; give a number", code="argument-type-wrong")
        return cls(**block)

    def __post_init__(self) -> None:
        limits = {
            "rotation": 180.0, "shear": 60.0, "zoom": 3.0, "stretch": 1.0, "shift": 0.5, "tilt": 0.5,
            "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "blur_sigma": 8.0, "noise_std": 1.0,
            "cutout_side": 1.0, "wander_by": 0.2, "mottle_depth": 1.0, "sharpen_by": 10.0,
        }  # fmt: skip
        for name, limit in limits.items():
            within(0.0, limit, {f"distortion.{name}": getattr(self, name)}, "[)")
        within(0.0, 1.0, {f"distortion.{name}": getattr(self, name) for name in SHARES})
        within(0.0, 0.5, {"distortion.hue": self.hue})  # of the circle of hues
        within(SMALLEST, math.inf, {"distortion.shrink_to": self.shrink_to})
        Augment(flip=self.mirror, flip_unless=self.flip_unless)

    def may_mirror(self, row: Mapping[str, Any]) -> bool:
        """Whether the row's mirror image still matches its caption, name and keywords."""
        return Augment(flip=self.mirror, flip_unless=self.flip_unless).may_flip(row)

    @staticmethod
    def may_recolour(row: Mapping[str, Any]) -> bool:
        """Whether the row's texts hold no word of colour."""
        return not words_of(row) & COLOURS

    def __call__(
        self, images: Tensor, draws: Sequence[np.random.Generator], *, size: int, may_mirror: np.ndarray,
        may_recolour: np.ndarray,
    ) -> Tensor:  # fmt: skip
        """uint8 (B, 3, H, H) -> float32 (B, 3, size, size) in [-1, 1].

        Args:
            draws: one random stream an image. may_mirror, may_recolour: (B,) bool, by the methods of these names.
        """
        u = np.stack([g.random(DRAWS) for g in draws])
        unsteadily = self.wander > 0 or self.mottle > 0 or self.sharpen > 0
        # Drawn only where requested: other recipes' images stay the same.
        v = np.stack([g.random(unsteady.DRAWS) for g in draws]) if unsteadily else np.ones((len(u), unsteady.DRAWS))
        moved = unsteady.wandering(v, draws, size, self.wander, self.wander_by) if self.wander > 0 else None
        x = self._placed(images, u, size, may_mirror, moved)
        x = self._coloured(x, u, may_recolour)
        x = unsteady.mottled(x, v, draws, self.mottle, self.mottle_depth)
        x = self._shrunk(x, u)
        x = self._blurred(x, u)
        x = unsteady.sharpened(
            x, lambda part: blurred(part, np.full(len(part), SOFT)), v, self.sharpen, self.sharpen_by
        )
        x = self._noisy(x, u, draws)
        return self._cut(x, u).clamp_(-1, 1)

    def _placed(
        self, images: Tensor, u: np.ndarray, size: int, may_mirror: np.ndarray, moved: Tensor | None
    ) -> Tensor:  # fmt: skip
        """Seen through a homography, and then each place `moved` (B, size, size, 2); outside is white."""
        signed = 2 * u - 1
        angle = np.radians(self.rotation) * signed[:, 0]
        shear = np.tan(np.radians(self.shear) * signed[:, 1])
        scale = (1 + self.zoom) ** signed[:, 2]
        ratio = (1 + self.stretch) ** (0.5 * signed[:, 3])
        mirrored = np.where((u[:, 6] < self.mirror) & may_mirror, -1.0, 1.0)
        one, none = np.ones(len(u)), np.zeros(len(u))
        # From places of the result to places of the image: the inverse of what is done to the image.
        size_and_ratio = _matrices(1 / (scale * ratio), none, none, ratio / scale)
        turned = _matrices(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
        sheared = _matrices(mirrored, mirrored * shear, none, one)
        matrix = np.zeros((len(u), 3, 3))
        matrix[:, :2, :2] = sheared @ turned @ size_and_ratio
        matrix[:, 0, 2], matrix[:, 1, 2] = 2 * self.shift * signed[:, 4], 2 * self.shift * signed[:, 5]
        tilted = u[:, 7] < self.perspective
        matrix[:, 2, 0] = np.where(tilted, self.tilt * signed[:, 8], 0.0)
        matrix[:, 2, 1] = np.where(tilted, self.tilt * signed[:, 9], 0.0)
        matrix[:, 2, 2] = 1.0
        line = (torch.arange(size, dtype=torch.float32) + 0.5) * (2 / size) - 1
        across, down = torch.meshgrid(line, line, indexing="xy")
        base = torch.stack([across.flatten(), down.flatten(), torch.ones(size * size)])  # (3, size * size)
        places = torch.from_numpy(matrix).float() @ base  # (B, 3, size * size)
        places = (places[:, :2] / places[:, 2:]).mT.reshape(len(u), size, size, 2).to(images.device)
        if moved is not None:
            places = places + moved.to(images.device)
        # Zeros outside, of the image as its distance from white: white outside.
        darkness = images.float().div_(-127.5).add_(2.0)
        return 1.0 - F.grid_sample(darkness, places, padding_mode="zeros", align_corners=False)

    def _coloured(self, x: Tensor, u: np.ndarray, may_recolour: np.ndarray) -> Tensor:
        """One affine map of the three channels an image: contrast and brightness, saturation, hue."""
        if self.colour == 0:
            return x
        chosen = np.flatnonzero(u[:, 10] < self.colour)
        if len(chosen) == 0:
            return x
        signed, free = 2 * u[chosen] - 1, may_recolour[chosen]
        turn = np.where(free, 2 * np.pi * self.hue * signed[:, 14], 0.0)
        saturation = np.where(free, 1 + self.saturation * signed[:, 13], 1.0)
        saturation = np.where(free & (u[chosen, 15] < self.grey), 0.0, saturation)
        inner = np.zeros((len(chosen), 3, 3))
        inner[:, 0, 0] = 1.0
        inner[:, 1, 1] = inner[:, 2, 2] = saturation * np.cos(turn)
        inner[:, 1, 2], inner[:, 2, 1] = -saturation * np.sin(turn), saturation * np.sin(turn)
        contrast = 1 + self.contrast * signed[:, 12]
        matrix = torch.from_numpy(FROM_YIQ @ inner @ TO_YIQ * contrast[:, None, None]).float().to(x.device)
        offset = torch.from_numpy(2 * self.brightness * signed[:, 11]).float().to(x.device)
        flat = x[chosen].flatten(2)
        x[chosen] = (matrix @ flat + offset[:, None, None]).reshape(-1, *x.shape[1:]).clamp_(-1, 1)
        return x

    def _shrunk(self, x: Tensor, u: np.ndarray) -> Tensor:
        """Shrunk by area average to one of a few sizes, and enlarged by bicubic, as small images are judged."""
        size = x.shape[-1]
        sides = sorted({s for s in (self.shrink_to, self.shrink_to * 4 // 3, self.shrink_to * 2, 64) if s < size})
        if self.shrink == 0 or not sides:
            return x
        which = (u[:, 17] * len(sides)).astype(int)
        for i, side in enumerate(sides):
            chosen = np.flatnonzero((u[:, 16] < self.shrink) & (which == i))
            if len(chosen):
                small = F.interpolate(x[chosen], (side, side), mode="area")
                x[chosen] = F.interpolate(small, (size, size), mode="bicubic").clamp_(-1, 1)
        return x

    def _blurred(self, x: Tensor, u: np.ndarray) -> Tensor:
        """Blurred by a Gaussian of each image's own width, down and across."""
        chosen = np.flatnonzero(u[:, 18] < self.blur)
        if self.blur == 0 or len(chosen) == 0:
            return x
        sigma = 0.3 + u[chosen, 19] * max(self.blur_sigma - 0.3, 0.0)
        return x.index_copy_(0, torch.from_numpy(chosen).to(x.device), blurred(x[chosen], sigma))

    def _noisy(self, x: Tensor, u: np.ndarray, draws: Sequence[np.random.Generator]) -> Tensor:
        """Normal noise added, for every pixel or for blocks of two."""
        for i in np.flatnonzero(u[:, 20] < self.noise).tolist():
            grain = 2 if u[i, 22] < 0.5 else 1
            side = math.ceil(x.shape[-1] / grain)
            field = torch.from_numpy(draws[i].standard_normal((1, 3, side, side), dtype=np.float32))
            if grain > 1:
                field = F.interpolate(field, scale_factor=grain, mode="nearest")[..., : x.shape[-1], : x.shape[-1]]
            x[i] += float(self.noise_std * u[i, 21]) * field[0].to(x.device)
        return x

    def _cut(self, x: Tensor, u: np.ndarray) -> Tensor:
        """Boxes of one grey each."""
        if self.cutout == 0:
            return x
        size = x.shape[-1]
        for i in np.flatnonzero(u[:, 23] < self.cutout):
            for box in range(1 + int(3 * u[i, 24])):
                top, left, high, wide, tone = u[i, 25 + 5 * box : 30 + 5 * box]
                rows, columns = (max(1, int(self.cutout_side * s * size)) for s in (high, wide))
                down, across = int(top * (size - rows)), int(left * (size - columns))
                x[i, :, down : down + rows, across : across + columns] = float(2 * tone - 1)
        return x


def _matrices(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(B,) each -> (B, 2, 2): rows (a, b) and (c, d)."""
    return np.stack([np.stack([a, b], axis=1), np.stack([c, d], axis=1)], axis=1)


def blurred(x: Tensor, sigma: np.ndarray) -> Tensor:
    """(B, 3, H, W) blurred by Gaussians of `sigma` (B,) pixels; the border is continued."""
    reach = max(1, math.ceil(3 * float(sigma.max())))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = torch.from_numpy(kernel / kernel.sum(axis=1, keepdims=True)).float().to(x.device)
    count, channels, height, width = x.shape
    weights = kernel.repeat_interleave(channels, dim=0)[:, None]  # (B * 3, 1, K)
    flat = x.reshape(1, count * channels, height, width)
    padded = F.pad(flat, (reach,) * 4, mode="replicate")
    down = F.conv2d(padded, weights[..., None], groups=count * channels)
    return F.conv2d(down, weights[:, :, None], groups=count * channels).reshape(x.shape)
