"""A stage: a denoiser with its guidance, sampler and autoencoder, at one resolution; and how stages share a size.

Its samples are of its sample space (zoo.pipeline.space): images, or arrays, which are signals (B, C, L), fields
(B, C, H, W) of any number of channels and volumes (B, C, D, H, W). A stage of arrays is alone in its pipeline and
starts from noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.config.conditions import conditioners_of
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.types import Autoencoder, Guidance, Sampler
from zoo.images.space import IMAGES, share
from zoo.pipeline.space import SampleSpace
from zoo.schema.errors import UsageError

Pixels = tuple[int, int]  # (height, width)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A denoiser with its guidance, sampler and autoencoder, at one resolution.

    `takes` says what it starts from (noise, or the latent or the image of the stage before), `feeds` what it passes on;
    `listens` names its conditioners, or maps each field to those that fill it (zoo.config.conditions); `space` says
    what its samples are, and how large; `interval` is the part of t it runs over, (high, low).
    Of a super-resolution stage, `small_size` is pixels a side of the smaller image (that of the stage before, if not
    given) and `augmentation` the level in [0, 1] to which that is noised (none, if not given).
    """

    name: str
    denoiser: Denoiser
    autoencoder: Autoencoder
    sampler: Sampler
    guidance: tuple[Guidance, ...] = ()
    listens: tuple[str, ...] | Mapping[str, Any] = ()
    takes: str = "noise"
    feeds: str = "image"
    space: SampleSpace = IMAGES
    interval: tuple[float, float] = (1.0, 0.0)
    small_size: int | None = None
    augmentation: float | None = None

    @property
    def conditioners(self) -> tuple[str, ...]:
        """The names of its conditioners, each once."""
        return conditioners_of(self.listens)

    @property
    def enlarges(self) -> bool:
        """Whether its network is conditioned on a smaller image."""
        return self.denoiser.low_res is not None

    @property
    def size(self) -> int:
        """Pixels a side of its images; UsageError where it draws arrays."""
        return self.space.side

    @property
    def size_multiple(self) -> int:
        """The lengths of samples' axes must be multiples of this."""
        return self.autoencoder.factor * int(getattr(self.denoiser.network, "size_multiple", 1))

    def lengths(self, size: int | Sequence[int] | None) -> tuple[int, ...]:
        """The axes of its samples, once decoded; UsageError for those that the networks can't draw."""
        dims = getattr(self.denoiser.network, "dims", None)
        return self.space.lengths(size, stage=self.name, multiple=self.size_multiple, dims=dims)


def lay_out(stages: Sequence[Stage], size: int | Sequence[int] | None) -> list[tuple[int, ...]]:
    """Each stage's lengths, like (height, width), where the last one's are `size`; the others keep their share."""
    last = stages[-1]
    wanted = last.lengths(size)
    before = [stage.lengths(share(wanted, stage.size, last.size, stage.name)) for stage in stages[:-1]]
    return [*before, wanted]


def small_sizes(stages: Sequence[Stage], sizes: Sequence[tuple[int, ...]]) -> list[Pixels | None]:
    """(height, width) of the smaller image that each stage is conditioned on; None for one that isn't."""
    found: list[Pixels | None] = []
    for number, (stage, size) in enumerate(zip(stages, sizes, strict=True)):
        small = stage.small_size
        if not stage.enlarges:
            found.append(None)
        elif small is not None:
            found.append(pixels(share(size, small, stage.size, stage.name)))
        elif number:
            found.append(pixels(sizes[number - 1]))
        else:
            raise UsageError(
                f"stage '{stage.name}' enlarges a picture and nobody says how small that is; give its small_size "
                "(low_res in the contract of its card)",
                code="small-size-missing",
            )
    return found


def pixels(lengths: Sequence[int]) -> Pixels:
    """An image's axes as (height, width)."""
    height, width = lengths
    return height, width
