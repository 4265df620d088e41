"""The phase `train` as a process: shipped models' recipes for as long as its time lasts.

python -m benchmarks.on_gpu.train --device cuda --out DIR --seconds 150 --data emoji-core-128.zip
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

BEGAN = time.monotonic()  # before importing torch, which counts against the time


def main() -> None:
    """Writes train.json, weights/ and sheet.png into the folder; ends when the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a network of some thousand parameters")
    parser.add_argument("--data", help="a folder or zip with metadata.jsonl")
    parser.add_argument("--start", help="a folder of weights that an earlier call trained")
    parser.add_argument("--wait", type=Path, help="prepare, and train until the time that this file will hold")
    asked = parser.parse_args()
    from benchmarks.on_gpu.sitting import Sitting

    sitting = Sitting(
        out=asked.out, until=BEGAN + asked.seconds, device=asked.device, tiny=asked.tiny, data=asked.data,
        start=asked.start, wait=asked.wait,
    )  # fmt: skip
    sitting.run()


if __name__ == "__main__":
    main()
