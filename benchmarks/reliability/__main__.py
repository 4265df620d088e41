"""Hostile files, kills, full disks and damaged bits, at full counts.

    python -m benchmarks.reliability                            # every part, into results/reliability.json
    python -m benchmarks.reliability --parts training,mutants   # some; the record keeps the others
    python -m benchmarks.reliability --share 0.02               # a fiftieth of every count, and no record

A part ends in a line and in the record, so a command that is stopped goes on with `--parts` of what is missing. Exits
with 1 where anything was lost, executed, written outside, untyped, slow or large.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.reliability import bombs, disks, fuzz, good, hostile, kills, mutants, paths
from benchmarks.reliability.trial import MEMORY, SECONDS

Part = Callable[[Path, float], dict[str, Any]]


def _joined(*found: dict[str, Any]) -> dict[str, Any]:
    """Parts that are counted together."""
    keys = [key for key in found[0] if key != "faults"]
    return {
        **{key: sum(one[key] for one in found) for key in keys},
        "faults": [f for one in found for f in one["faults"]],
    }


def _made(part: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A part that needs the good files, in its own folder."""
    return lambda folder: part(good.make(folder / "home"))


def _number(full: int, share: float) -> int:
    return max(1, round(full * share))


# A part, and what it does a `share` of in a folder of its own.
PARTS: dict[str, Part] = {
    "saves": lambda folder, share: kills.saves(folder, share),
    "training": lambda folder, share: kills.training(folder, _number(200, share)),
    "evaluation": lambda folder, share: kills.evaluation(folder / "evaluation", _number(100, share)),
    "mutants": lambda folder, share: _made(lambda home: mutants.run(home, _number(2000, share)))(folder),
    "texts": lambda folder, share: _made(lambda home: hostile.through(hostile.texts(home), home, share))(folder),
    "pickles": lambda folder, share: _made(
        lambda home: _joined(hostile.through(hostile.pickles(home), home, share), hostile.weights(home))
    )(folder),
    "bombs": lambda folder, share: _made(lambda home: hostile.through(bombs.cases(home), home, share))(folder),
    "paths": lambda folder, share: _made(lambda home: hostile.through(paths.cases(home), home, share))(folder),
    "plugins": lambda folder, share: _made(disks.plugins)(folder),
    "disks": lambda folder, share: _made(disks.run)(folder),
    "fuzz": lambda folder, share: _made(lambda home: fuzz.run(home, _number(10_000, share)))(folder),
}


def main() -> int:
    """Run them, print a line a part and the faults, keep the record."""
    parser = argparse.ArgumentParser(description="Hostile files, kills, full disks and spoiled bits.")
    parser.add_argument("--parts", default=",".join(PARTS), help="commas between (%(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts; below 1 nothing is recorded")
    parser.add_argument("--out", type=Path, help="the record; results/reliability.json if not given")
    options = parser.parse_args()
    chosen = options.parts.split(",")
    if absent := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part '{absent[0]}'; choose from {', '.join(PARTS)}")
    place = options.out or record.RESULTS / "reliability.json"
    failed = False
    for name in chosen:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[name](Path(folder), options.share)
        failed |= bool(found["faults"])
        print(f"{name}: {found['cases']} cases, {len(found['faults'])} faults, {time.perf_counter() - begun:.0f} s")
        for fault in found["faults"][:20]:
            print(f"  {fault}", flush=True)
        if options.share >= 1.0:
            _keep(place, name, found)
    return 1 if failed else 0


def _keep(place: Path, name: str, found: dict[str, Any]) -> None:
    """Put a part into the record; each says of which commit and when, since they need not be of one sitting."""
    before = json.loads(place.read_text())["values"] if place.exists() else {}
    made = record.make(
        "reliability",
        settings={"seconds_beyond_good": SECONDS, "mebibytes_beyond_good": MEMORY, "seed": 0},
        values={},
        packages=("torch", "numpy", "pillow", "hypothesis"),
    )
    sitting = {key: made[key] for key in ("date", "commit", "dirty")}
    faults = {"faults": len(found["faults"]), "first_faults": found["faults"][:20]}
    values = {**before, name: {**found, **faults, **sitting}}
    made["values"] = {part: values[part] for part in PARTS if part in values}
    record.write(made, place)


if __name__ == "__main__":
    sys.exit(main())
