"""Random choices by address: order, captions and timesteps that depend on what they are for, not on when.

The uniform companion of `zoo.noise`: every stream is a numpy Philox generator keyed by (seed, purpose, index), so a
run resumed at any step, or split over any number of processes, makes the same choices.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The random stream of one address."""
    digest = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")
    key = np.array([seed, digest], dtype=np.uint64)
    counter = np.array([0, index, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order in which an epoch visits `length` rows."""
    return stream(seed, "order", epoch).permutation(length)


def rows_of_batch(seed: int, step: int, batch_size: int, length: int) -> np.ndarray:
    """The rows of batch `step`: consecutive places in the endless row of shuffled epochs; (batch_size,) int64."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {int(e): epoch_order(seed, int(e), length) for e in np.unique(places // length)}
    return np.array([orders[int(p // length)][p % length] for p in places], dtype=np.int64)
