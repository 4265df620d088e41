"""Compile ahead what the phase `speed` will compile, while another phase runs: `python -m benchmarks.on_gpu.ahead`.

The networks and the code are the suite's own, in its order. DIR holds torch's caches, with which the phase itself must
be started (`benchmarks.peers.ahead.environment`), and `compile.json`: how long each took with empty ones.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.on_gpu import speed


def main(words: list[str] | None = None) -> int:
    """Compile until the time is over; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu.ahead", description=__doc__)
    parser.add_argument("--device", default="cuda", help="where the networks will run")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="torch's caches, and compile.json")
    parser.add_argument("--seconds", type=float, default=90.0, help="no compilation begins after them")
    parser.add_argument("--tiny", action="store_true", help="the suite of small networks")
    given = parser.parse_args(words)
    # Before torch's compiler is imported, which reads them once.
    from benchmarks.peers.ahead import environment

    for name, value in environment(given.cache).items():
        os.environ.setdefault(name, value)
    from benchmarks.peers import ROW_KINDS
    from benchmarks.peers.ahead import write
    from benchmarks.peers.compilations import compilations
    from zoo.bench.suite import read_suite

    suite = read_suite(speed.suite(device=given.device, tiny=given.tiny), kinds=ROW_KINDS)

    def report(text: str) -> None:
        print(text, flush=True)

    write(given.cache, compilations(suite, seconds=given.seconds, report=report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
