"""The cost of starting: `import zoo` over the bare interpreter, and the verbs that must never import torch.

Interpreters with and without the import take turns, each in its own process, so that other load on the machine falls
on both alike. A verb is run in a process that says afterwards whether torch was imported. Modules are read as bytecode,
as they are after an installation: from a folder of the run's own, which the first turn fills.

    python -m benchmarks.startup
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks import record

VERBS = (
    ("list",),
    ("describe", "sampler/ddim"),
    ("check", "latent-text2img"),
    ("diff", "latent-text2img", "--sampler", "dpmpp-2m", "--steps", "20"),
    ("diff", "latent-text2img", "cascade-text2img"),
    ("diff", "latent-text2img", "--sampler", "heun"),  # its evaluations depend on the schedule's end: numpy
)
# Runs one verb and says on the last line of stderr what it exited with and whether torch came along.
PROBE = """
import json, sys
from zoo.cli.main import run
code = run(sys.argv[1:])
print(json.dumps({"code": code, "torch": "torch" in sys.modules}), file=sys.stderr)
"""


def seconds(environment: dict[str, str], *command: str) -> float:
    """Wall time of a process."""
    began = perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=record.ROOT, env=environment)
    return perf_counter() - began


def probe(environment: dict[str, str], *verb: str) -> tuple[float, bool]:
    """Wall time of a verb in its own process, and whether it imported torch."""
    command = [sys.executable, "-c", PROBE, *verb]
    began = perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, cwd=record.ROOT, env=environment)
    took = perf_counter() - began
    said = json.loads(done.stderr.decode().splitlines()[-1])
    if said["code"] != 0:
        raise RuntimeError(f"`zoo {' '.join(verb)}` exited with {said['code']}: {done.stderr.decode()}")
    return took, said["torch"]


def with_bytecode(folder: str) -> dict[str, str]:
    """This process's environment, with modules' bytecode kept in a folder whatever that environment says of it."""
    found = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**found, "PYTHONPYCACHEPREFIX": folder}


def measure(repeats: int) -> dict:
    """Every quantity with all its runs."""
    with TemporaryDirectory() as folder:
        return _measure(repeats, with_bytecode(folder))


def _measure(repeats: int, environment: dict[str, str]) -> dict:
    python = sys.executable
    bare: list[float] = []
    imported: list[float] = []
    verbs: dict[str, list[float]] = {" ".join(v): [] for v in VERBS}
    torch = {"import zoo": json.loads(_answer("import sys, zoo; print(int('torch' in sys.modules))")) == 1}
    for turn in range(repeats + 1):
        spent = [seconds(environment, python, "-c", code) for code in ("pass", "import zoo")]
        found = {" ".join(v): probe(environment, *v) for v in VERBS}
        if turn == 0:  # the first turn fills the disk's cache and the bytecode's
            continue
        bare.append(spent[0])
        imported.append(spent[1])
        for name, (took, came) in found.items():
            verbs[name].append(took)
            torch[f"zoo {name}"] = torch.get(f"zoo {name}", False) or came
    over = [i - b for i, b in zip(imported, bare, strict=True)]
    return {
        "bare_interpreter_seconds": record.median_of(bare),
        "import_zoo_seconds": record.median_of(imported),
        "import_zoo_over_bare_seconds": record.median_of(over),
        "verb_seconds": {name: record.median_of(runs) for name, runs in verbs.items()},
        "imports_torch": torch,
    }


def _answer(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=record.ROOT
    ).stdout


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="What starting zoo costs.")
    parser.add_argument("--repeats", type=int, default=15, help="runs to take the median of")
    parser.add_argument("--quick", action="store_true", help="two runs and no record")
    options = parser.parse_args()
    repeats = 2 if options.quick else options.repeats
    values = measure(repeats)
    print(f"import zoo over the bare interpreter: {values['import_zoo_over_bare_seconds']['median']:.3f} s")
    for name, found in values["verb_seconds"].items():
        print(f"zoo {name}: {found['median']:.3f} s")
    print("imports torch: " + (", ".join(k for k, v in values["imports_torch"].items() if v) or "none"))
    if not options.quick:
        made = record.make(
            "startup", settings={"repeats": repeats, "statistic": "median", "bytecode": "kept"}, values=values
        )
        print(record.write(made))


if __name__ == "__main__":
    main()
