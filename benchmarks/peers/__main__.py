"""`python -m benchmarks.peers SUITE`: `zoo bench` with the kinds of rows that compare zoo with other libraries."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.peers import ROW_KINDS, SUITES
from zoo.cli.bench import bench_suite
from zoo.schema.errors import ZooError


def main() -> int:
    """The exit code: 1 where a row failed, 2 where the request was wrong."""
    names = [path.stem for path in sorted(SUITES.glob("*.yaml"))]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("suite", help=f"one of {', '.join(names)}, or a file")
    parser.add_argument("--set", action="append", dest="overrides", metavar="KEY=VALUE", help="override the suite")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for the record")
    parser.add_argument("--device", default="auto", help="of rows that name none")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished record in the folder")
    parser.add_argument("--dry-run", action="store_true", help="show the rows")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    suite = SUITES / f"{given.suite}.yaml" if given.suite in names else given.suite
    try:
        bench_suite(
            suite, given.overrides, kinds=ROW_KINDS, dry_run=given.dry_run, as_json=given.json, out=given.out,
            device=given.device, resume=given.resume,
        )  # fmt: skip
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
