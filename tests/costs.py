"""What tests cost, and whether their marks say so.

    pytest --all --costs costs.json     # measures; ends with a table, a line a folder of tests
    python -m tests.costs costs.json    # tests that should be marked slow and are not, and the other way round

Costs are CPU seconds, of the test process, of the processes that it waited for and of the server that begins others
(`tests/processes.py`): unlike seconds of the clock they hardly depend on what else the machine does, and a test that
waits costs nobody anything. A test is a function with all its cases and with the fixtures that it is the first to
need. Where it costs more than `SLOW` it bears the mark `slow`, and `pytest` leaves it to `pytest --all`; where it
costs less than half of that it bears no such mark. What lies between may stay as it is, so that no noise moves it.
Comparisons with other libraries, marked `peer`, are left to `pytest --all` whatever they cost: their imports take
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

SLOW = 0.3  # CPU seconds


class Cost(NamedTuple):
    """Of one case of a test."""

    test: str  # its node's name, with its case in brackets
    seconds: float  # CPU
    slow: bool  # `pytest` leaves it out
    ran: bool
    peer: bool = False  # because it compares with another library, whatever it costs

    @property
    def function(self) -> str:
        """The test without its case."""
        return self.test.partition("[")[0]

    @property
    def folder(self) -> str:
        """The folder of `tests`, or `tests` itself."""
        parts = self.test.partition("::")[0].split("/")
        return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def spent() -> float:
    """CPU seconds until now: this process's, those of its children that ended, and those of the server's."""
    own = sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
    server = getattr(forkserver._forkserver, "_forkserver_pid", None)
    stat = Path(f"/proc/{server}/stat")
    if server is None or not stat.exists():
        return own
    fields = stat.read_text().rpartition(")")[2].split()  # from the third on: the second may hold blanks
    return own + sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def write(costs: Iterable[Cost], path: Path) -> None:
    """As JSON, in the order of the tests' names."""
    rows = [cost._asdict() for cost in sorted(costs)]
    path.write_text(json.dumps(rows, indent=1) + "\n")


def read(path: Path) -> list[Cost]:
    """What `write` wrote."""
    return [Cost(**row) for row in json.loads(path.read_text())]


def table(costs: Iterable[Cost]) -> list[str]:
    """A line a folder: how many tests ran, how many of them are slow, CPU seconds, the costliest function."""
    folders: dict[str, list[Cost]] = defaultdict(list)
    for cost in costs:
        if cost.ran:
            folders[cost.folder].append(cost)
    lines = [f"{'':24} {'tests':>6} {'slow':>6} {'CPU s':>8}  costliest"]

    def line(name: str, of: list[Cost], last: str) -> str:
        seconds = sum(cost.seconds for cost in of)
        return f"{name:24} {len(of):6} {sum(cost.slow for cost in of):6} {seconds:8.1f}  {last}"

    for name, of in sorted(folders.items(), key=lambda item: -sum(cost.seconds for cost in item[1])):
        sums = functions(of)
        function = max(sums, key=lambda one: sums[one][0])
        lines.append(line(name, of, f"{sums[function][0]:.1f} {function.partition('::')[2]}"))
    return [*lines, line("all", [cost for of in folders.values() for cost in of], "")]


def functions(costs: Iterable[Cost]) -> dict[str, tuple[float, bool]]:
    """Of every function that ran: CPU seconds of its cases together, and whether all of them are marked slow."""
    found: dict[str, list[Cost]] = defaultdict(list)
    for cost in costs:
        if cost.ran:
            found[cost.function].append(cost)
    return {name: (sum(c.seconds for c in of), all(c.slow for c in of)) for name, of in found.items()}


def wrong(costs: Sequence[Cost], over: float = SLOW) -> tuple[dict[str, float], dict[str, float]]:
    """Functions that cost more than `over` CPU seconds and lack the mark; those that bear it and cost under half."""
    sums = functions(costs)
    unmarked = {name: seconds for name, (seconds, slow) in sums.items() if not slow and seconds > over}
    peers = {cost.function for cost in costs if cost.peer}
    needless = {name: s for name, (s, slow) in sums.items() if slow and s < over / 2 and name not in peers}
    return unmarked, needless


def main() -> int:
    """List what is marked wrongly; 1 where anything is."""
    parser = argparse.ArgumentParser(description="Tests whose mark 'slow' is not what was measured.")
    parser.add_argument("costs", type=Path, help="what 'pytest --all --costs FILE' wrote")
    parser.add_argument("--over", type=float, default=SLOW, help="CPU seconds that make a test slow (%(default)s)")
    options = parser.parse_args()
    costs = read(options.costs)
    unmarked, needless = wrong(costs, options.over)
    for title, found in (("lacks the mark slow", unmarked), ("is marked slow and isn't", needless)):
        for name, seconds in sorted(found.items(), key=lambda item: -item[1]):
            print(f"{seconds:8.2f} s  {name} {title}")
    quick = sum(seconds for name, (seconds, slow) in functions(costs).items() if not slow)
    print(f"{len(unmarked)} lack the mark, {len(needless)} bear it needlessly; what 'pytest' runs costs {quick:.0f} s")
    return 1 if unmarked or needless else 0


if __name__ == "__main__":
    sys.exit(main())
