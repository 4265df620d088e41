"""Noise by address: standard normal numbers that depend on what they are for, not on when they were drawn.

A sequential generator gives sample 3 other noise in a batch of 4 than in a batch of 1. Here every draw has an address
(seed, purpose, sample, stage, step, draw) and its numbers come from a counter-based generator keyed by it (Philox:
Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), so an image is the same whatever the batch size,
the shard or the device.

    key     = (seed, hash of purpose)                          2 x 64 bits
    counter = (running, sample, stage, step * 2^32 + draw)     4 x 64 bits; `running` counts blocks within a draw

`FixedNoise` replays given tensors, which is how images are compared with other libraries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.diffusion.types import NoiseSource
from zoo.schema.errors import UsageError


@dataclass(frozen=True)
class AddressedNoise:
    """Standard normal noise of a 64-bit seed; the same address always gives the same bits."""

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral):
            raise UsageError(
                f"a seed is a whole number, not {self.seed!r}; give one from 0 to 2^64 - 1", code="seed-invalid"
            )
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"the seed {self.seed} is out of range; give one from 0 to 2^64 - 1", code="seed-invalid")

    def __call__(
        self,
        shape: Sequence[int],
        *,
        purpose: str,
        samples: Sequence[int],
        stage: int = 0,
        step: int = 0,
        draw: int = 0,
    ) -> Tensor:
        """(len(samples), *shape), float32 on the CPU."""
        digest = hashlib.blake2b(purpose.encode("utf-8"), digest_size=8).digest()
        key = np.array([int(self.seed), int.from_bytes(digest, "little")], dtype=np.uint64)
        assert 0 <= stage < 2**64, stage
        assert 0 <= step < 2**32, step
        assert 0 <= draw < 2**32, draw
        out = np.empty((len(samples), *shape), dtype=np.float32)
        for row, sample in enumerate(samples):
            assert 0 <= sample < 2**64, sample
            counter = np.array([0, int(sample), int(stage), (int(step) << 32) | int(draw)], dtype=np.uint64)
            out[row] = np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(tuple(shape))
        return torch.from_numpy(out)


@dataclass(frozen=True, kw_only=True)
class SeededSamples:
    """Addressed noise of samples with seeds of their own: row i of a call is sample `numbers[i]` of seed `seeds[i]`.

    So each sample is what a separate call with that seed draws.
    """

    seeds: tuple[int, ...]
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        for seed in self.seeds:
            AddressedNoise(seed)

    def __call__(
        self, shape: Sequence[int], *, purpose: str, samples: Sequence[int], stage: int = 0, step: int = 0,
        draw: int = 0,
    ) -> Tensor:  # fmt: skip
        """(len(samples), *shape), float32 on the CPU."""
        rows = [
            AddressedNoise(self.seeds[i])(
                shape, purpose=purpose, samples=[self.numbers[i]], stage=stage, step=step, draw=draw
            )
            for i in samples
        ]
        return torch.cat(rows) if rows else torch.empty((0, *shape))


class FixedNoise:
    """Given tensors, replayed.

    `tensors` maps a purpose, or the beginning of an address (purpose, stage, step, draw), to a tensor whose rows are
    the samples; the longest matching beginning answers. A list is one tensor a step. A lone tensor is the noise that
    a run starts from: `FixedNoise(x)` is `FixedNoise({"start": x})`.
    """

    def __init__(self, tensors: Tensor | np.ndarray | Mapping[str | tuple, Any]) -> None:
        """UsageError where one isn't a tensor of finite numbers; numpy's arrays are taken as tensors."""
        given = dict(tensors) if isinstance(tensors, Mapping) else {"start": tensors}
        self._tensors: dict[tuple, Tensor | tuple[Tensor, ...]] = {}
        for address, value in given.items():
            many = isinstance(value, (list, tuple))
            read = tuple(_finite(one, address) for one in (value if many else (value,)))
            self._tensors[address if isinstance(address, tuple) else (address,)] = read if many else read[0]

    def __call__(
        self,
        shape: Sequence[int],
        *,
        purpose: str,
        samples: Sequence[int],
        stage: int = 0,
        step: int = 0,
        draw: int = 0,
    ) -> Tensor:
        """(len(samples), *shape), a copy, in the given tensor's dtype but at least float32, on the CPU."""
        address = (purpose, stage, step, draw)
        where = f"purpose '{purpose}', stage {stage}, step {step}, draw {draw}"
        value = next((self._tensors[address[:n]] for n in (4, 3, 2, 1) if address[:n] in self._tensors), None)
        if isinstance(value, tuple):
            value = value[step] if step < len(value) else None
        if value is None:
            raise UsageError(f"the fixed noise holds nothing for {where}; add a tensor for it", code="noise-missing")
        if tuple(value.shape[1:]) != tuple(shape):
            raise UsageError(
                f"the fixed noise for {where} has samples of shape {tuple(value.shape[1:])} "
                f"where {tuple(shape)} is needed; give noise of that shape",
                code="noise-unfit",
            )
        if max(samples, default=-1) >= len(value):
            raise UsageError(
                f"the fixed noise for {where} has {len(value)} samples "
                f"and sample {max(samples)} was asked for; give one row a sample",
                code="noise-unfit",
            )
        rows = value.detach().cpu()[list(samples)]
        return rows if rows.dtype == torch.float64 else rows.float()


def _finite(value: Any, address: Any) -> Tensor:
    """Given noise as a tensor; UsageError where it is none, or its infinity would be blamed on the network."""
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    tensor: Any = torch.from_numpy(value) if numbers else value
    if isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta and tensor.ndim:
        finite = not tensor.is_complex() and bool(torch.isfinite(tensor).all())
    else:
        finite = False
    if finite:
        return tensor
    raise UsageError(
        f"the noise given for {address!r:.60} is no tensor of finite numbers; give (B, C, *spatial)", code="noise-unfit"
    )


@dataclass(frozen=True, kw_only=True)
class Renumbered:
    """Another source whose samples have other numbers: row i of a call is sample `numbers[i]` of the source.

    So one image of a batch can be drawn again alone.
    """

    source: NoiseSource
    numbers: tuple[int, ...]

    def __call__(
        self,
        shape: Sequence[int],
        *,
        purpose: str,
        samples: Sequence[int],
        stage: int = 0,
        step: int = 0,
        draw: int = 0,
    ) -> Tensor:
        """(len(samples), *shape) of the source."""
        numbers = [self.numbers[sample] for sample in samples]
        return self.source(shape, purpose=purpose, samples=numbers, stage=stage, step=step, draw=draw)


@dataclass(frozen=True, kw_only=True)
class BoundNoise:
    """A noise source bound to the samples of one run; what a sampler's loop calls."""

    source: NoiseSource
    shape: tuple[int, ...]
    samples: tuple[int, ...]
    stage: int
    purpose: str
    device: torch.device

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        """(len(samples), *shape) on the run's device."""
        noise = self.source(
            self.shape, purpose=self.purpose, samples=self.samples, stage=self.stage, step=step, draw=draw
        )
        return noise.to(self.device)


def bound(
    source: NoiseSource,
    *,
    shape: Sequence[int],
    samples: Sequence[int],
    stage: int = 0,
    purpose: str = "step",
    device: torch.device | str = "cpu",
) -> BoundNoise:
    """The noise of some samples of a run: `bound(source, ...)(step, draw)`.

    The purposes zoo itself uses are `start` (where a run begins) and `step` (what a sampler draws at its steps).
    """
    return BoundNoise(
        source=source,
        shape=tuple(shape),
        samples=tuple(samples),
        stage=stage,
        purpose=purpose,
        device=torch.device(device),
    )
