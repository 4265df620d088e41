"""Low-resolution conditioning: how a super-resolution network is conditioned on the small image.

Saharia et al. 2021 (SR3) concatenate the enlarged small image to the network's input channels. In a cascade it is a
sample, so Ho et al. 2021 (section 4.2) train the network on small images noised to a level s, which it is conditioned
on, and it learns to ignore detail finer than that noise:

    z_s = alpha_s * small + sigma_s * eps,      concat = enlarge(z_s),      level = s

s is a t of `schedule`: 0 is the small image itself. *Non-truncated* conditioning noises a finished small image;
*truncated* conditioning stops the stage below at t = s and its x_s is z_s, which needs the same schedule and
noise on the small image (`noised: before`).

| class | who uses it |
|---|---|
| `GaussianAugmentation` | cascaded diffusion and Imagen (noised before enlarging), IF (after) |
| `Plain` | ADM's upsamplers, SR3: no noise, no level |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.diffusion.types import Condition, NoiseSchedule
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.ranges import one_of

Resize = Literal["bilinear", "bicubic"]
Noised = Literal["before", "after"]
Tells = Literal["level", "label"]


@dataclass(frozen=True, kw_only=True)
class GaussianAugmentation:
    """The small image with Gaussian noise of a level that the network is conditioned on.

    schedule: what a level means. resize: how the small image is enlarged. noised: before or after that.
    tells: the network reads the `level` itself, or as a `label` the index of the schedule's point (the x4 upscaler of
    Stable Diffusion, which has a learned embedding for each).
    """

    papers = (
        "2106.15282 Cascaded Diffusion Models for High Fidelity Image Generation",
        "2205.11487 Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding",
    )
    noises = True

    schedule: NoiseSchedule
    resize: Resize = "bilinear"
    noised: Noised = "before"
    tells: Tells = "level"

    def __post_init__(self) -> None:
        one_of("resize", self.resize, get_args(Resize))
        one_of("noised", self.noised, get_args(Noised))
        one_of("tells", self.tells, get_args(Tells))
        if self.tells == "label" and self.schedule.T is None:
            raise ConfigError(
                "a label is the index of a schedule's point and this schedule is continuous; say tells: level",
                code="schedule-not-discrete",
            )

    def noise_shape(self, small: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int]:
        """(3, height, width) of the noise that a call needs."""
        return (3, *(small if self.noised == "before" else size))

    def __call__(
        self, small: Tensor, *, size: tuple[int, int], level: Tensor | None = None, eps: Tensor | None = None
    ) -> Condition:
        """small (B, 3, h, w) in [-1, 1], level (B,) in [0, 1], eps (B, *noise_shape) -> concat (B, 3, *size), level."""
        level = small.new_zeros(len(small)) if level is None else level.to(small.device)
        if eps is None:
            if not level.is_meta and bool((level > 0).any()):
                raise UsageError(
                    "a small picture is to be noised and no noise was given; give eps", code="noise-missing"
                )
            return self.upsampled(small, size=size, level=level)
        alpha, sigma = (
            torch.from_numpy(a).to(small).view(-1, 1, 1, 1) for a in self.schedule(level.double().cpu().numpy())
        )
        eps = eps.to(small)
        if self.noised == "before":
            return self.upsampled(alpha * small + sigma * eps, size=size, level=level)
        return self._told(alpha * enlarge(small, size, self.resize) + sigma * eps, level)

    def upsampled(self, noised: Tensor, *, size: tuple[int, int], level: Tensor) -> Condition:
        """The condition where the small image is noised to `level` already: truncated conditioning."""
        return self._told(enlarge(noised, size, self.resize), level)

    def _told(self, concat: Tensor, level: Tensor) -> Condition:
        if self.tells == "level":
            return Condition(concat=concat, level=level.float())
        index = (level.double() * (self.schedule.T or 1)).round().long() - 1
        return Condition(concat=concat, label=index.clamp(min=0))


@dataclass(frozen=True, kw_only=True)
class Plain:
    """The small image as it is, without noise or level."""

    papers = ("2104.07636 Image Super-Resolution via Iterative Refinement",)
    noises = False

    resize: Resize = "bilinear"

    def __post_init__(self) -> None:
        one_of("resize", self.resize, get_args(Resize))

    def noise_shape(self, small: tuple[int, int], size: tuple[int, int]) -> None:
        """No noise is needed."""

    def __call__(
        self, small: Tensor, *, size: tuple[int, int], level: Tensor | None = None, eps: Tensor | None = None
    ) -> Condition:
        """small (B, 3, h, w) in [-1, 1] -> concat (B, 3, H, W); a level other than 0 is refused."""
        if level is not None and bool((level != 0).any()):
            raise UsageError(
                "low_res 'plain' noises nothing; leave the augmentation out", code="augmentation-untrained"
            )
        return Condition(concat=enlarge(small, size, self.resize))


def enlarge(small: Tensor, size: tuple[int, int], resize: Resize) -> Tensor:
    """(B, C, h, w) -> (B, C, *size). Bicubic may leave [-1, 1] at edges, as in training."""
    if tuple(small.shape[2:]) == tuple(size):
        return small
    return F.interpolate(small, size, mode=resize, align_corners=False)
