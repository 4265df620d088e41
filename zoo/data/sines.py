"""Made-up signals to try networks of one, two or three axes on: waves whose frequencies are known.

    x(u) = a * sin(2 pi k . u + phi),    u in [0, 1)^d,

with k, the cycles along each axis, a and phi drawn uniformly. So the spectrum of what a network learned from them has
its peak where the data's has: between `low` and `high`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from zoo.data import arguments
from zoo.data.dataset import Row
from zoo.diffusion.draws import stream


class Sines:
    """Sine waves of random frequency, phase and amplitude, made up as they are needed: arrays of one channel.

    Args:
        size: samples along each axis; a number is one axis. count: rows to train on; a tenth as many to validate.
        low, high: cycles along each axis, drawn between them. amplitude: the least; the most is 1.
        split: `train` or `val`. seed: of the draws.
    """

    fits = "zoo.data.arguments:sines"
    values = (-1.0, 1.0)

    def __init__(
        self, *, size: int | Sequence[int] = 128, count: int = 2048, low: float = 3.0, high: float = 6.0,
        amplitude: float = 0.5, split: str | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.size = (size,) if isinstance(size, int) else tuple(size)
        arguments.sines(size=size, count=count, low=low, high=high, amplitude=amplitude, split=split, seed=seed)
        self.low, self.high, self.amplitude, self.split, self.seed = low, high, amplitude, split, seed
        rows = max(1, count // 10) if split == "val" else count
        self.rows: list[Row] = [{"file_name": f"wave {i}", "text": ""} for i in range(rows)]

    def __len__(self) -> int:
        return len(self.rows)

    def arrays(self) -> np.ndarray:
        """All rows, float32 (N, 1, *size) in [-1, 1]."""
        axes = np.meshgrid(*(np.arange(length) / length for length in self.size), indexing="ij")
        out = np.empty((len(self), 1, *self.size), dtype=np.float32)
        for i in range(len(self)):
            draw = stream(self.seed, f"sines {self.split}", i)
            cycles = draw.uniform(self.low, self.high, len(self.size))
            amplitude, phase = draw.uniform(self.amplitude, 1.0), draw.uniform(0.0, 2.0 * math.pi)
            turns = sum(k * u for k, u in zip(cycles, axes, strict=True))
            out[i, 0] = amplitude * np.sin(2.0 * math.pi * turns + phase)
        return out

    def fingerprint(self) -> str:
        """All that decides the draws."""
        return f"sines {self.size} {len(self)} {self.low} {self.high} {self.amplitude} {self.split} {self.seed}"
