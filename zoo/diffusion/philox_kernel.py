"""Philox4x64-10 as one Triton kernel, for cuda devices; `zoo.diffusion.philox` checks its output against its own
arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 512


@triton.jit
def _kernel(samples, fixed, out, blocks, total, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < total
    c0 = (place % blocks + 1).to(tl.uint64)
    c1 = tl.load(samples + place // blocks, mask=inside, other=0).to(tl.uint64, bitcast=True)
    nothing = tl.zeros([BLOCK], dtype=tl.uint64)
    c2 = nothing + tl.load(fixed).to(tl.uint64, bitcast=True)
    c3 = nothing + tl.load(fixed + 1).to(tl.uint64, bitcast=True)
    m0 = nothing + tl.load(fixed + 22).to(tl.uint64, bitcast=True)
    m1 = nothing + tl.load(fixed + 23).to(tl.uint64, bitcast=True)
    for i in range(1, 11):
        high0, low0 = tl.umulhi(c0, m0), c0 * m0
        high1, low1 = tl.umulhi(c2, m1), c2 * m1
        c0 = high1 ^ c1 ^ tl.load(fixed + 2 * i).to(tl.uint64, bitcast=True)
        c2 = high0 ^ c3 ^ tl.load(fixed + 2 * i + 1).to(tl.uint64, bitcast=True)
        c1, c3 = low1, low0
    to = out + 4 * place
    tl.store(to, c0.to(tl.int64, bitcast=True), mask=inside)
    tl.store(to + 1, c1.to(tl.int64, bitcast=True), mask=inside)
    tl.store(to + 2, c2.to(tl.int64, bitcast=True), mask=inside)
    tl.store(to + 3, c3.to(tl.int64, bitcast=True), mask=inside)


def blocks_of(samples: Tensor, fixed: Tensor, blocks: int) -> Tensor:
    """(B,) int64 and (12, 2) int64, as `zoo.diffusion.philox` lays them out -> (B, blocks, 4) int64."""
    out = torch.empty(len(samples), blocks, 4, dtype=torch.int64, device=samples.device)
    total = len(samples) * blocks
    _kernel[(triton.cdiv(total, BLOCK),)](samples, fixed, out, blocks, total, BLOCK=BLOCK)  # type: ignore[arg-type]
    return out
