"""A stage: a denoiser with its guidance, sampler and autoencoder, at one resolution; and how stages share a size.

A stage with an `extent` draws arrays and not pictures: signals (B, C, L), fields (B, C, H, W) of any number of
channels, volumes (B, C, D, H, W). It stands alone, and starts from noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.config.conditions import conditioners_of
from zoo.denoiser import Denoiser
from zoo.errors import UsageError
from zoo.types import Autoencoder, Guidance, Sampler

Pixels = tuple[int, int]  # (height, width)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A denoiser with its guidance, sampler and autoencoder, at one resolution.

    `takes` says what it starts from (noise, or the latent or the image of the stage before), `feeds` what it hands on;
    `listens` names its conditioners, or says field by field which of them fill it (zoo.config.conditions); `size` is
    pixels a side; `interval` is the part of t it runs over, (high, low).
    Of a super-resolution stage, `small_size` is pixels a side of the smaller picture (that of the stage before, if not
    given) and `augmentation` the level in [0, 1] to which that is noised (none, if not given).
    Of a stage that feeds arrays, `extent` is the length of each axis and `values` what -1 and 1 stand for.
    """

    name: str
    denoiser: Denoiser
    autoencoder: Autoencoder
    sampler: Sampler
    guidance: tuple[Guidance, ...] = ()
    listens: tuple[str, ...] | Mapping[str, Any] = ()
    takes: str = "noise"
    feeds: str = "image"
    size: int = 64
    interval: tuple[float, float] = (1.0, 0.0)
    small_size: int | None = None
    augmentation: float | None = None
    extent: tuple[int, ...] | None = None
    values: tuple[float, float] = (-1.0, 1.0)

    @property
    def conditioners(self) -> tuple[str, ...]:
        """The names of the conditioners that it listens to, each once."""
        return conditioners_of(self.listens)

    @property
    def enlarges(self) -> bool:
        """Whether its network is conditioned on a smaller picture."""
        return self.denoiser.low_res is not None

    @property
    def size_multiple(self) -> int:
        """Pictures' height and width must be multiples of this."""
        return self.autoencoder.factor * int(getattr(self.denoiser.network, "size_multiple", 1))

    def pixels(self, size: int | Pixels | None) -> Pixels:
        """(height, width) of this stage's pictures; UsageError for one the networks can't do."""
        wanted = (self.size, self.size) if size is None else (size, size) if isinstance(size, int) else tuple(size)
        multiple = self.size_multiple
        if len(wanted) != 2 or any(
            isinstance(s, bool) or not isinstance(s, int) or s < 1 or s % multiple for s in wanted
        ):
            said = "x".join(str(s) for s in wanted)
            near = max(multiple, round(self.size / multiple) * multiple)
            raise UsageError(
                f"stage '{self.name}' can't do the size {said}: height and width must be multiples of {multiple}, "
                f"like {near}"
            )
        return wanted[0], wanted[1]

    def axes(self, size: int | Sequence[int] | None) -> tuple[int, ...]:
        """The lengths of an array's axes; UsageError for those that the network can't do."""
        assert self.extent is not None
        wanted = self.extent if size is None else (size,) if isinstance(size, int) else tuple(size)
        multiple, said = self.size_multiple, "x".join(str(s) for s in wanted)
        dims = getattr(self.denoiser.network, "dims", len(self.extent))
        if len(wanted) != dims:
            like = "x".join(str(s) for s in self.extent)
            raise UsageError(
                f"stage '{self.name}' can't do the size {said}: its network is of {dims} axes and that has "
                f"{len(wanted)}; give one length an axis, like {like}"
            )
        if any(isinstance(s, bool) or not isinstance(s, int) or s < 1 or s % multiple for s in wanted):
            raise UsageError(
                f"stage '{self.name}' can't do the size {said}: the length of each axis must be a multiple of "
                f"{multiple}"
            )
        return wanted

    def finished(self, decoded: Tensor) -> Tensor:
        """What the autoencoder gave as it is returned: pictures in [0, 1], or arrays in the data's units."""
        if self.extent is None:
            return (decoded * 0.5 + 0.5).clamp(0, 1)
        low, high = self.values
        return decoded * ((high - low) / 2) + (high + low) / 2


def lay_out(stages: Sequence[Stage], size: int | Pixels | None) -> list[Pixels]:
    """Each stage's (height, width) where the last one's is `size`; the others keep their share of it."""
    last = stages[-1]
    wanted = last.pixels(size)
    return [stage.pixels(_share(wanted, stage.size, last.size, stage.name)) for stage in stages]


def small_sizes(stages: Sequence[Stage], sizes: Sequence[Pixels]) -> list[Pixels | None]:
    """(height, width) of the smaller picture that each stage is conditioned on; None for one that isn't."""
    found: list[Pixels | None] = []
    for number, (stage, size) in enumerate(zip(stages, sizes, strict=True)):
        small = stage.small_size
        if not stage.enlarges:
            found.append(None)
        elif small is not None:
            found.append(_share(size, small, stage.size, stage.name))
        elif number:
            found.append(sizes[number - 1])
        else:
            raise UsageError(
                f"stage '{stage.name}' enlarges a picture and nobody says how small that is; give its small_size "
                "(low_res in the contract of its card)"
            )
    return found


def _share(whole: Pixels, part: int, of: int, name: str) -> Pixels:
    """`whole` times part / of."""
    if any(s * part % of for s in whole):
        height, width = whole
        raise UsageError(
            f"the size {height}x{width} leaves no whole pixels to stage '{name}', which has {part} for {of}; "
            f"use multiples of {of}"
        )
    return whole[0] * part // of, whole[1] * part // of
