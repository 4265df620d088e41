"""`python -m benchmarks.on_gpu`: what needs a GPU, in as many minutes as there are."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks.on_gpu.conductor import SHARES, Conductor
from benchmarks.on_gpu.joined import earlier, gather, join
from benchmarks.on_gpu.table import failed, table
from zoo.schema.errors import ZooError

WORK = (*SHARES, "inductor", "triton", "compile.json")  # what phases leave under --out until they are joined
RESULTS = Path(__file__).resolve().parent.parent / "results"


def main() -> int:
    """The exit code: 1 where something failed, 2 where the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="all phases together")
    parser.add_argument("--out", type=Path, help="a folder for the record, the weights and the sheets")
    parser.add_argument("--phases", default=",".join(SHARES), help="of these, separated by commas")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu to try the command")
    parser.add_argument("--tiny", action="store_true", help="networks and counts for two CPU cores")
    parser.add_argument("--data", help="the folder or zip of images with captions to measure and train with")
    parser.add_argument("--start", help="a folder of weights that an earlier call trained, to go on from")
    parser.add_argument("--pack", type=Path, help="collect here what a bare machine lacks, and do nothing else")
    asked = parser.parse_args()
    if asked.pack is not None:
        return _pack(asked)
    phases = [name.strip() for name in asked.phases.split(",") if name.strip()]
    unknown = next((name for name in phases if name not in SHARES), None)
    if unknown is not None or not phases:
        parser.error(f"--phases: there is no phase '{unknown or ''}'; give some of {', '.join(SHARES)}")
    if asked.out is None:
        parser.error("--out: give a folder for what comes out, or --pack to collect what must travel")
    if not 0 < asked.minutes < 24 * 60:
        parser.error(f"--minutes is {asked.minutes:g}; give minutes above 0 and under a day")
    if asked.data is not None and not Path(asked.data).exists():
        parser.error(f"--data: '{asked.data}' does not exist; give a folder or a zip with metadata.jsonl")
    if asked.start is not None and not Path(asked.start).is_dir():
        parser.error(f"--start: '{asked.start}' is no folder; give one with weights that an earlier call brought back")
    work = asked.out / "work"
    if (asked.out.exists() or asked.out.is_symlink()) and not asked.out.is_dir():
        parser.error(f"--out: '{asked.out}' is no folder; give one, or a name for one")
    other = next((path.name for path in sorted(work.glob("*")) if path.name not in WORK), None)
    if other is not None:  # it is emptied, and may be anybody's where --out is the folder one works in
        parser.error(f"--out: '{work}' holds '{other}', which is none of this command's; give another folder")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, it still ends what it started
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: '{asked.out}' can't be made: {error.strerror or error}; give another folder")
    shutil.rmtree(work, ignore_errors=True)  # of an earlier call
    conductor = Conductor(
        out=asked.out, device=asked.device, seconds=60.0 * asked.minutes, tiny=asked.tiny, data=asked.data,
        start=asked.start, after=earlier(asked.out, RESULTS), phases=[p for p in SHARES if p in phases],
    )  # fmt: skip
    found = conductor.run()
    whole = join(found)
    left_out = gather(asked.out, whole, table(whole, found))
    print(table(whole, found, left_out))
    if conductor.interrupted:
        print(f"interrupted; what was measured is in '{asked.out}'", file=sys.stderr)
        return 130
    shutil.rmtree(work, ignore_errors=not left_out)
    reason = failed(whole, found)
    if reason is not None:
        print(f"failed: {reason}", file=sys.stderr)
    return 0 if reason is None else 1


def _pack(asked: Any) -> int:
    from benchmarks.on_gpu.pack import pack

    pack(asked.pack, data=asked.data, start=asked.start)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
