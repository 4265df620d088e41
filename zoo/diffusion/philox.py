"""numpy's addressed random numbers in torch, so that a device draws for itself what the host would draw.

`zoo.diffusion.noise` and `zoo.diffusion.draws` key numpy's Philox by address. Here the same words come from the same
counters by integer arithmetic that runs anywhere, and the same normal numbers from the same words by the ziggurat that
numpy walks (Marsaglia & Tsang 2000, "The ziggurat method for generating random variables", 256 layers), for all samples
at once.

    word j of an address = word (j mod 4) of Philox4x64-10(key, counter + (j div 4) + 1)

An int64 tensor holds the bits of an unsigned number: products wrap as they should, shifts are masked.
A walk takes a few words more than the numbers it gives: where a word falls outside of its layer's core (0.7 % of them)
it needs another to decide, and after a rejection starts again. Which words begin a number is found by `ROUNDS` passes
over the row, which resolve that many undecided words in a row (more: below 1e-15 a number), and `TRIES` tries in the
tail (more: below 1e-11 a number). A device whose exp and log1p round otherwise may decide otherwise in the last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, localcontext
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from zoo.schema.notes import note

MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)  # Salmon et al. 2011, table 2
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
LAYERS = 256
TAIL = 3.6541528853610087963519472518  # where the lowest layer ends and the tail begins
ROUNDS, TRIES = 8, 8
LARGEST = 2**24  # words held at once, which bounds memory
_LOW = 0xFFFFFFFF


def key_of(seed: int, purpose: str) -> tuple[int, int]:
    """The key of an address: its seed and a hash of its purpose."""
    return int(seed), int.from_bytes(hashlib.blake2b(purpose.encode("utf-8"), digest_size=8).digest(), "little")


def words(key: tuple[int, int], samples: Tensor, count: int, *, stage: int = 0, last: int = 0) -> Tensor:
    """The first `count` words of each sample's stream: (B,) int64 -> (B, count) int64 with the bits of uint64.

    counter = (running, sample, stage, last); `last` is step * 2^32 + draw.
    """
    fixed = _fixed(key, stage, last, samples.device)
    if _held is not None:
        _held.append(fixed)
    blocks = -(-count // 4)
    made = _fused(samples, fixed, blocks) if samples.device.type == "cuda" else _blocks(samples, fixed, blocks)
    return made.flatten(1)[:, :count]


_held: list[Tensor] | None = None


@contextmanager
def held() -> Iterator[list[Tensor]]:
    """The tensors that the draws meanwhile read: a recording reads them again, and the cache may drop them."""
    global _held
    before, _held = _held, []
    try:
        yield _held
    finally:
        _held = before


@lru_cache(maxsize=256)
def _fixed(key: tuple[int, int], stage: int, last: int, device: torch.device) -> Tensor:
    """(12, 2) int64: stage and last, the keys of the ten rounds, the multipliers."""
    rounds = [(_signed((key[0] + i * WEYL[0]) % 2**64), _signed((key[1] + i * WEYL[1]) % 2**64)) for i in range(10)]
    factors = (_signed(MULTIPLIERS[0]), _signed(MULTIPLIERS[1]))
    return torch.tensor([(_signed(stage), _signed(last)), *rounds, factors], device=device)


def _blocks(samples: Tensor, fixed: Tensor, blocks: int) -> Tensor:
    """(B,) -> (B, blocks, 4): Philox4x64-10 of each sample's first counters."""
    c0 = torch.arange(1, blocks + 1, device=samples.device).expand(len(samples), blocks)
    c1 = samples[:, None].expand_as(c0)
    c2, c3 = fixed[0, 0].expand_as(c0), fixed[0, 1].expand_as(c0)
    for i in range(1, 11):
        high0, low0 = _product(c0, MULTIPLIERS[0])
        high1, low1 = _product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ fixed[i, 0], low1, high0 ^ c3 ^ fixed[i, 1], low0
    return torch.stack([c0, c1, c2, c3], dim=-1)


class _Fused:
    """`_blocks` as one kernel; as separate operations without Triton, or where the kernel's first words differ."""

    def __init__(self) -> None:
        self._usable = True
        self._seen: set[tuple[int, int, torch.device]] = set()

    def __call__(self, samples: Tensor, fixed: Tensor, blocks: int) -> Tensor:
        shape = (len(samples), blocks, samples.device)
        if self._usable and shape in self._seen:
            return self._kernel(samples, fixed, blocks)
        plain = _blocks(samples, fixed, blocks)
        if self._usable:
            try:
                same = torch.equal(self._kernel(samples, fixed, blocks), plain)
            except Exception as error:  # no triton, or an incompatible version
                self._stop(str(error))
            else:
                self._seen.add(shape)
                if not same:
                    self._stop("it gives other words")
        return plain

    def _kernel(self, samples: Tensor, fixed: Tensor, blocks: int) -> Tensor:
        from zoo.diffusion.philox_kernel import blocks_of  # triton comes with cuda

        return blocks_of(samples.contiguous(), fixed, blocks)

    def _stop(self, why: str) -> None:
        self._usable = False
        note(f"noise is drawn by many kernels, since the one for all can't be used: {why}", UserWarning, stacklevel=4)


_fused = _Fused()


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _product(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """The high and the low word of a * b, from products of half words."""
    a_high, a_low, b_high, b_low = (a >> 32) & _LOW, a & _LOW, b >> 32, b & _LOW
    first = a_high * b_low + (((a_low * b_low) >> 32) & _LOW)
    second = a_low * b_high + (first & _LOW)
    return a_high * b_high + ((first >> 32) & _LOW) + ((second >> 32) & _LOW), a * _signed(b)


def unit(bits: Tensor) -> Tensor:
    """Words -> float64 in [0, 1), as numpy's `random()` makes them."""
    return ((bits >> 11) & (2**53 - 1)).double() * 2.0**-53


@cache
def layers() -> np.ndarray:
    """(3, 256): the share of each layer that lies in its core times 2^52, its width over 2^52, the density there."""
    with localcontext() as context:
        context.prec = 50
        tail, scale = Decimal("3.6541528853610087963519472518"), Decimal(2**52)
        area = Decimal("0.0049286732339746554")

        def density(x: Decimal) -> Decimal:
            return (-x * x / 2).exp()

        core, width, height = [[0.0] * LAYERS for _ in range(3)]
        x = tail
        core[0], width[0], height[0] = float(x * density(x) / area * scale), float(area / density(x) / scale), 1.0
        width[-1], height[-1] = float(x / scale), float(density(x))
        for i in range(LAYERS - 2, 0, -1):
            inner = (-2 * (area / x + density(x)).ln()).sqrt()
            core[i + 1] = float(int(inner / x * scale))
            width[i], height[i], x = float(inner / scale), float(density(inner)), inner
        core[0] = float(int(core[0]))
    return np.array([core, width, height])


@cache
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(layers()).to(device)


def normal(shape: Sequence[int], key: tuple[int, int], samples: Tensor, *, stage: int = 0, last: int = 0) -> Tensor:
    """Standard normal (B, *shape), float32, on the device of `samples` (B,) int64; numpy's numbers."""
    count = int(np.prod(shape, dtype=np.int64))
    length = count + count // 32 + 64
    table = _table(samples.device)
    step = max(1, LARGEST // length)
    parts = [
        _walk(words(key, part, length + 2 * TRIES, stage=stage, last=last), table, count, length)
        for part in samples.split(step)
    ]
    return torch.cat(parts).reshape(len(samples), *shape)


def _walk(bits: Tensor, table: Tensor, count: int, length: int) -> Tensor:
    """(B, length + 2 * TRIES) words -> (B, count) float32; NaN where a walk had too few words."""
    first = bits[:, :length]
    layer = first & 0xFF
    size = (first >> 9) & (2**52 - 1)
    core, width, height = table[:, layer].unbind(0)
    x = size.double() * width
    x = torch.where((first >> 8) & 1 == 1, -x, x)
    inside = size.double() < core
    after = unit(bits)
    # Between the core and the curve the next word decides.
    above = table[2][(layer - 1).clamp(min=0)]
    under = (above - height) * after[:, 1 : length + 1] + height < torch.exp(-0.5 * x * x)
    taken = torch.where(inside, 1, 2)  # words that a trial beginning here takes
    good = inside | under
    # Beyond the lowest layer, the tail: pairs of words until one is accepted.
    tail = (layer == 0) & ~inside
    logs = -torch.log1p(-after)
    good, open_still = good & ~tail, tail
    for i in range(TRIES):
        far = logs[:, 1 + 2 * i : length + 1 + 2 * i] / TAIL
        near = logs[:, 2 + 2 * i : length + 2 + 2 * i]
        found = open_still & (2.0 * near > far * far)
        beyond = TAIL + far
        x = torch.where(found, torch.where((size >> 8) & 1 == 1, -beyond, beyond), x)
        taken = torch.where(found, 3 + 2 * i, taken)
        good, open_still = good | found, open_still & ~found
    # A word begins a trial unless a trial that began before it took it.
    place = torch.arange(length, device=bits.device)
    reach, long = place + taken, taken > 1
    begins = torch.ones_like(long)
    for _ in range(ROUNDS):
        ends = torch.where(long & begins, reach, 0).cummax(dim=1).values
        begins = torch.cat([torch.ones_like(begins[:, :1]), ends[:, :-1] <= place[1:]], dim=1)
    given = begins & good
    to = torch.where(given, given.cumsum(dim=1) - 1, count).clamp(max=count)
    out = torch.full((len(bits), count + 1), float("nan"), device=bits.device)
    return out.scatter_(1, to, x.float())[:, :count]
