"""Threads that don't slow a busy machine: how PyTorch's threads wait, and how many there are.

PyTorch on a CPU shares each operation among OpenMP threads, one a core, and a thread that is done spins until the
others are. Beside other work the others aren't running, and spinning takes the core that they wait for: an image that
takes a fifth of a second alone took eleven. A thread that spins shortly and then sleeps costs an idle machine next to
nothing. GNU's OpenMP, which PyTorch brings, reads how long from the environment when it is loaded, so it must be set
before torch is imported.
"""

from __future__ import annotations

import os
import sys

SPIN = "GOMP_SPINCOUNT"
TURNS = "1000"  # some microseconds; GNU's own default is some hundred milliseconds
# A user's own setting of how threads wait is kept.
SAID = (SPIN, "OMP_WAIT_POLICY")


def prepare(threads: int | None = None) -> bool:
    """Let PyTorch's threads sleep while they wait, and have `threads` of them; whether that came in time.

    Called by `zoo.build`, `zoo.load`, `zoo.train` and the command line. A program that imports torch first calls it
    before that; afterwards only the number of threads can be changed, and False is returned where spinning stays.
    """
    if "torch" in sys.modules:
        if threads is not None:
            sys.modules["torch"].set_num_threads(threads)
        return any(name in os.environ for name in SAID)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if not any(name in os.environ for name in SAID):
        os.environ[SPIN] = TURNS
    return True
