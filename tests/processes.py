"""Processes of their own for tests, which an earlier test of the same run can't spoil.

A fork of the test process has whatever earlier tests left in it. Once autograd has begun threads of its own there
(torch begins one a device, and takes the device that FakeTensor invents on a machine without a GPU for one), a fork of
it refuses every backward pass; a lock that another thread held stays shut. So processes are forked from a server
(multiprocessing's "forkserver") that has imported what they need (`tests/preloaded.py`) and done nothing else: as
quick as a fork, and clean. The price: work is a function of a module, with arguments (`functools.partial`), not a
closure, and what a test monkeypatched is not in the process.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch


def context() -> ForkServerContext:
    """Where processes, events and shared values come from; the server begins with the first process."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.preloaded"])
    return found


def _do(work: Callable[[], object], environment: dict[str, str], said: Path | None) -> None:
    """What a process does: `work`, on one thread and with the environment of whoever began it."""
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    # What it prints is nobody's; what it raises goes to `said`, in words.
    sys.stdout = sys.stderr = open(os.devnull if said is None else said, "w")  # noqa: SIM115
    try:
        work()
    except BaseException as error:
        if said is not None:
            said.write_text(f"{type(error).__name__}: {error}")
            said.with_suffix(".traceback").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def started(work: Callable[[], object], *, said: Path | None = None, **environment: str) -> BaseProcess:
    """Begin `work`, a function that pickle can name, in a process; its exit code is 0 where it came to its end.

    `said` is a file for what it writes to stderr, or for what it raised; `environment` is added to this process's.
    """
    process = context().Process(target=_do, args=(work, {**os.environ, **environment}, said))
    process.start()
    return process


def worlds(work: list[Callable[[], object]], said: list[Path] | None = None) -> list[BaseProcess]:
    """Begin one process a rank, with the environment that torchrun gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        started(
            one,
            said=None if said is None else said[rank],
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(len(work)),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank, one in enumerate(work)
    ]


def ended(processes: list[BaseProcess], seconds: float = 120.0) -> list[int | None]:
    """Exit codes, once all have ended; a process that takes longer than `seconds` is killed."""
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]
