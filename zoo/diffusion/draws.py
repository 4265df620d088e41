"""Random choices by address: order, captions and timesteps that depend on what they are for, not on when.

The uniform companion of `zoo.diffusion.noise`: every stream is a numpy Philox generator keyed by (seed, purpose,
index), so a run resumed at any step, or split over any number of processes, makes the same choices.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


def stream(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The random stream of one address."""
    digest = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
    key = np.array([seed, digest], dtype=np.uint64)
    counter = np.array([0, index, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order in which an epoch visits `length` rows; read-only, since it is kept for the epoch's next batches."""
    order = stream(seed, "order", epoch).permutation(length)
    order.flags.writeable = False
    return order


def rows_of_batch(seed: int, step: int, batch_size: int, length: int) -> np.ndarray:
    """The rows of batch `step`: consecutive places in the endless sequence of shuffled epochs; (batch_size,) int64."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // length
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = epoch_order(seed, int(epoch), length)[places[here] % length]
    return rows
