"""This checkout beside an earlier commit of it: what starting, checking and drawing cost, in turn in one run.

Each verb is a process of its own, the two commits' one after the other, with modules read as bytecode that the first
turn wrote. Images are drawn by processes that have loaded a pipeline and take turns drawing four; both commits read the
earlier one's weights, and `apart` is how far their images are from each other. Seconds are those of the processor, one
thread, so that other load counts for little; a ratio is this checkout's over the earlier one's, turn by turn.

    python -m benchmarks.since d427dc5
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.startup import VERBS

PIPELINES = ("latent-text2img", "cascade-text2img")
# Draws four images whenever it is told to; says the seconds of the processor, and at last the images.
DRAWS = """
import base64, json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy, zoo
pipe = zoo.build(sys.argv[1])
for line in sys.stdin:
    began = time.process_time()
    made = pipe("red apple, 3d style", n=4, seed=0)
    print(json.dumps({"seconds": time.process_time() - began}), flush=True)
data = numpy.ascontiguousarray(made.tensor.numpy())
print(json.dumps({"shape": data.shape, "data": base64.b64encode(data.tobytes()).decode()}), flush=True)
"""


def environment(place: Path, bytecode: Path) -> dict[str, str]:
    """A process's, for the commit that is at `place`."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    own = {"PYTHONPATH": str(place), "PYTHONPYCACHEPREFIX": str(bytecode), "OMP_NUM_THREADS": "1"}
    return {**kept, **own, "MKL_NUM_THREADS": "1"}


def of_verb(place: Path, variables: dict[str, str], verb: tuple[str, ...]) -> float:
    """Seconds of the processor of a verb."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "zoo", *verb], check=True, capture_output=True, cwd=place, env=variables)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def verbs(places: dict[str, Path], variables: dict[str, dict[str, str]], turns: int) -> dict[str, Any]:
    """Each verb's seconds by commit, and the ratios."""
    found: dict[str, dict[str, list[float]]] = {" ".join(verb): {name: [] for name in places} for verb in VERBS}
    for turn in range(turns + 1):
        for verb in VERBS:
            for name, place in places.items():
                took = of_verb(place, variables[name], verb)
                if turn:  # the first turn writes the bytecode
                    found[" ".join(verb)][name].append(took)
    return {verb: compared(runs) for verb, runs in found.items()}


def drawn(places: dict[str, Path], variables: dict[str, dict[str, str]], turns: int) -> dict[str, Any]:
    """Each pipeline's seconds for four images by commit, the ratios, and how far the images are apart."""
    values = {}
    for pipeline in PIPELINES:
        config = _config(places["before"], pipeline)
        running = {
            name: subprocess.Popen(
                [sys.executable, "-c", DRAWS, str(config)], cwd=place, env=variables[name], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for name, place in places.items()
        }  # fmt: skip
        runs: dict[str, list[float]] = {name: [] for name in places}
        for turn in range(turns + 1):
            for name, process in running.items():
                took = _told(process, lambda p: print(file=p.stdin, flush=True))["seconds"]
                if turn:
                    runs[name].append(took)
        images = [_image(_told(process, lambda p: p.stdin.close())) for process in running.values()]  # type: ignore[union-attr]
        values[pipeline] = compared(runs) | {"apart": float(np.abs(images[0] - images[1]).max())}
    return values


def _config(place: Path, pipeline: str) -> Path:
    """A pipeline of the commit at `place`, with its weights by their path."""
    text = (place / "zoo" / "presets" / f"{pipeline}.yaml").read_text()
    weights = place / "zoo" / "weights"
    made = place / f"{pipeline}.yaml"
    made.write_text(re.sub(r"weights: ([\w-]+)", rf"weights: {weights}/\1.yaml", text))
    return made


def _told(process: subprocess.Popen[str], tell: Callable[[subprocess.Popen[str]], Any]) -> dict[str, Any]:
    """A process's next line, once it was told to go on."""
    tell(process)
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def _image(said: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(said["data"]), dtype=np.float32).reshape(said["shape"])


def compared(runs: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and this checkout's seconds over the earlier one's."""
    ratios = [now / before for now, before in zip(runs["now"], runs["before"], strict=True)]
    return {**{name: record.median_of(found) for name, found in runs.items()}, "ratio": record.median_of(ratios)}


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="This checkout beside an earlier commit.")
    parser.add_argument("commit", help="the earlier one")
    parser.add_argument("--turns", type=int, default=15, help="of each verb, and of each pipeline")
    parser.add_argument("--quick", action="store_true", help="two turns and no record")
    options = parser.parse_args()
    turns = 2 if options.quick else options.turns
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder) / "earlier"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(earlier), options.commit], check=True, cwd=record.ROOT
        )
        try:
            places = {"before": earlier, "now": record.ROOT}
            variables = {name: environment(place, Path(folder) / name) for name, place in places.items()}
            values = {"verbs": verbs(places, variables, turns), "draws": drawn(places, variables, turns)}
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(earlier)], check=True, cwd=record.ROOT)
    for rows in values.values():
        for what, row in rows.items():
            before, now, ratio = (row[key]["median"] for key in ("before", "now", "ratio"))
            print(f"{what}: {before:.3f} s before, {now:.3f} s now, {ratio:.3f} times")
    if not options.quick:
        settings = {"before": options.commit, "turns": turns, "statistic": "median", "seconds": "processor"}
        print(record.write(record.make(f"since-{options.commit}", settings=settings, values=values, threads=1)))


if __name__ == "__main__":
    main()
