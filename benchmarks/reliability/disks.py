"""Disks that are full, denied, broken or end within a write, and plugins that are broken: nothing good is lost."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability import good
from benchmarks.reliability.trial import tried
from tests.processes import started

CODES = {"full": errno.ENOSPC, "denied": errno.EACCES, "broken": errno.EIO}
LEFT = (".tmp", ".part", ".unfinished")
CALLS = ("fsync", "rename", "replace", "mkdir", "write")
# Verbs that write, with the file that an earlier call left, which has to survive; None for those that begin anew.
WRITERS = {
    "generate": (["generate", "a", "--model", "config.yaml", "-o", "kept/a.png"], "kept/a.png"),
    "report": (["report", "record.json", "-o", "kept/report.html"], "kept/report.html"),
    "plot": (["plot", "grid", "trailing", "-o", "kept/grid.png"], "kept/grid.png"),
    "train": (["train", "recipe.yaml", "--run", "kept/run"], None),
    "pack": (["data", "pack", "data", "kept/packed"], None),
    "statistics": (
        [*"evaluate data data --metrics fd --save-statistics kept/s.npz --extractor".split(), good.EXTRACTOR],  # noqa: SIM905
        "kept/s.npz",
    ),
    "bench": (["bench", "suite.yaml", "--out", "kept/bench"], None),
    "replay": (["replay", "image.png", "-o", "kept/again.png"], "kept/again.png"),
    "convert": (["convert", "model.safetensors", "kept/folder", "--heads", "4"], None),
    "convert back": (["convert", "model", "kept/a.safetensors"], None),
    "export": (["export", "kept/exported"], None),
    "doctor": (
        "doctor cascade cascade.yaml --data data -n 2 --steps 1 -o kept/doctor.png".split(),  # noqa: SIM905
        "kept/doctor.png",
    ),
    "report of runs": (["report", "run", "-o", "kept/runs.html"], "kept/runs.html"),
    "tables": (["report", "record.json", "--csv", "kept/tables"], None),
    "numbers": (["generate", "--model", "signal.yaml", "-o", "kept/a.npy"], "kept/a.npy"),
    "several": (["generate", "a", "b", "--model", "config.yaml", "-o", "kept/several"], None),
    "trajectory": (["plot", "trajectory", "config.yaml", "a", "-o", "kept/path.png"], "kept/path.png"),
    "features": (
        [*"evaluate data data --metrics fd --features kept/features --extractor".split(), good.EXTRACTOR],  # noqa: SIM905
        None,
    ),
    "new": (["new", "text2img", "captions", "--name", "made", "-o", "kept"], None),
}  # fmt: skip


@contextlib.contextmanager
def failing(call: str, code: int, after: int) -> Iterator[None]:
    """Let a system call fail from its `after`-th time on; a failing write has written what fits."""
    if call == "write":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 * (after + 1), before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        return
    real, calls = getattr(os, call), 0

    def fails(*arguments: Any, **words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **words)

    setattr(os, call, fails)
    try:
        yield
    finally:
        setattr(os, call, real)


def _one(home: Path, words: list[str], kept: str | None, told: Path) -> None:
    from zoo.cli.main import run

    os.chdir(home)
    faults, trials = [], 0
    for call in CALLS:
        for name, code in CODES.items() if call != "write" else [("short", 0)]:
            for after in (0, 1, 3):
                if kept is None:
                    shutil.rmtree(home / "kept")
                    (home / "kept").mkdir()
                before = (home / kept).read_bytes() if kept else None
                stderr, where = io.StringIO(), f"{words[0]}, {call} {name} after {after}"
                with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
                    try:
                        with failing(call, code, after):
                            ended = run(words)
                    except BaseException as error:
                        ended = 1
                        stderr.write(f"error: unexpected {type(error).__name__}: {error}")
                trials += 1
                if "error: unexpected" in stderr.getvalue() or (ended and "error: " not in stderr.getvalue()):
                    faults.append(f"{where}: untyped: {stderr.getvalue().strip()[-200:]}")
                if ended and kept and (home / kept).read_bytes() != before:
                    faults.append(f"{where}: the earlier file is lost")
                if left := [str(p) for p in (home / "kept").rglob("*") if p.name.endswith(LEFT)]:
                    faults.append(f"{where}: left {left[0]}")
                    for path in left:
                        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    told.write_text(json.dumps({"trials": trials, "faults": faults}))


def run(home: Path) -> dict[str, Any]:
    """Every verb that writes, with every call that can fail."""
    (home / "kept").mkdir()
    trials, faults = 0, []
    told = home.parent / "disks.told"
    for name, (words, kept) in WRITERS.items():
        if kept:
            _, found = tried([words, words], home)  # the first lets matplotlib look for its fonts
            faults += [f"{name}, on a good disk: {fault}" for fault in found.faults()]
        told.write_text(json.dumps({"trials": 0, "faults": [f"{name}: died"]}))
        started(partial(_one, home, words, kept, told)).join()
        one = json.loads(told.read_text())
        trials, faults = trials + one["trials"], faults + one["faults"]
    return {"cases": trials, "faults": faults}


PLUGINS = {
    "ImportError": ("import a_package_nobody_has\nclass X: ...\n", "sampler.one"),
    "SyntaxError": ("def (:\n", "sampler.two"),
    "sys.exit": ("import sys\nsys.exit(3)\nclass X: ...\n", "sampler.three"),
    "raise": ("raise RuntimeError('no licence')\nclass X: ...\n", "sampler.four"),
    "duplicate": ("class X: ...\n", "sampler.ddim"),
    "wrong type": ("X = 5\n", "sampler.six"),
    "no such kind": ("class X: ...\n", "smapler.seven"),
    "missing attribute": ("class Y: ...\n", "sampler.eight"),
}


def plugins(home: Path) -> dict[str, Any]:
    """Eight broken kinds side by side: others load, `zoo doctor` lists all eight, `zoo plugin check` says why.

    No verb needs one of them, and none ends otherwise for their being there.
    """
    site = home / "site"
    for number, (name, (source, key)) in enumerate(PLUGINS.items()):
        folder = site / f"broken_{number}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: broken-{number}\nVersion: 1.0\nSummary: {name}\n"
        )
        (folder / "entry_points.txt").write_text(f"[zoo.plugins]\n{key} = plugin_{number}:X\n")
        (site / f"plugin_{number}.py").write_text(source)
    (site / "fine-1.0.dist-info").mkdir()
    (site / "fine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fine\nVersion: 1.0\n")
    (site / "fine-1.0.dist-info" / "entry_points.txt").write_text("[zoo.plugins]\nsampler.fine = plugin_fine:X\n")
    (site / "plugin_fine.py").write_text("from zoo.samplers.ddim import DDIM\n\nclass X(DDIM):\n    '''Fine.'''\n")
    told = home.parent / "plugins.told"
    started(partial(_installed, site, told)).join()
    return {"cases": len(PLUGINS), **json.loads(told.read_text())}


def _installed(site: Path, told: Path) -> None:
    from zoo.cli.main import run
    from zoo.schema.registry import Registry

    sys.path.insert(0, str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    out, faults = io.StringIO(), []
    told.write_text(json.dumps({"faults": ["died"]}))
    said = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        run(["doctor"])
    shown = out.getvalue()
    examined = [
        "fine",
        *(f"broken-{i}" for i in range(len(PLUGINS))),
        *(key.replace(".", "/") for _, key in PLUGINS.values()),
    ]
    for words in (
        ["list"],
        ["check", "class2img"],
        ["describe", "sampler/ddim"],
        *(["plugin", "check", p] for p in examined),
    ):
        with contextlib.redirect_stdout(io.StringIO()) as told_by, contextlib.redirect_stderr(io.StringIO()) as errors:
            code = run(words)
        good = words[0] != "plugin" or words[-1] in ("fine", "sampler/ddim")
        if (code == 0) != good or "unexpected" in errors.getvalue() or not (told_by.getvalue() or errors.getvalue()):
            faults.append(f"zoo {' '.join(words)} ended with {code}: {errors.getvalue().strip()[-200:]}")
    faults += [f"the doctor does not list {name}" for i, name in enumerate(PLUGINS) if f"broken-{i}" not in shown]
    known = Registry.installed()
    for name in ("ddim", "fine"):
        try:
            known.load("sampler", name)
        except BaseException as error:
            faults.append(f"sampler {name} does not load: {error}")
    told.write_text(json.dumps({"faults": faults}))
