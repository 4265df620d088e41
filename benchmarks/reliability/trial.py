"""Trials: command lines of zoo in a process of their own, watched from inside and judged from outside.

The process reports each one's exit code, what it wrote to stderr, its CPU seconds, by how much its memory grew at most,
whether it began a program or a connection, and what it wrote outside its folder. Audit hooks see the last two, whatever
code causes them; a canary file shows programs that a hook could miss.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.processes import started

SECONDS = 1.0  # of CPU beyond what the same command takes with a good file
MEMORY = 64.0  # MiB beyond
HANGS = 120.0  # seconds of the clock, on a busy machine
ROOM = 4 * 2**30  # bytes of address space that a trial may take beyond what it begins with
BEGINS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "socket.connect")
WRITES = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.truncate": 0}  # event: which argument
CANARY = "canary"


class Found(NamedTuple):
    """What a trial did."""

    code: int | None  # None where it hung
    stderr: str
    printed: bool  # something on stdout: `data check` prints what it found there, and fails
    seconds: float
    grown: float  # MiB
    begun: list[str]
    outside: list[str]

    def faults(self, good: Found | None = None) -> list[str]:
        """What is wrong with it, in words; `good` is the same command with a good file."""
        usual = [] if good is None else [*good.begun, *good.outside]  # a benchmark asks git for the commit
        found = [f"began {name}" for name in self.begun if name not in usual]
        found += [f"wrote {path}" for path in self.outside if path not in usual]
        if self.code is None:
            return [*found, "hung"]
        if self.code not in (0, 1, 2):
            return [*found, f"ended with {self.code}"]
        if "error: unexpected " in self.stderr or "Traceback" in self.stderr:
            found.append("untyped: " + self.stderr.strip().splitlines()[-1][:200])
        elif self.code and "error: " not in self.stderr and not self.printed:
            found.append("failed without a sentence")
        if good is not None and self.seconds > good.seconds + SECONDS:
            found.append(f"slow: {self.seconds:.1f} s where a good file takes {good.seconds:.1f}")
        if good is not None and self.grown > good.grown + MEMORY:
            found.append(f"large: {self.grown:.0f} MiB where a good file takes {good.grown:.0f}")
        return found


def tried(commands: Sequence[Sequence[str]], home: Path) -> list[Found]:
    """Run each `zoo WORDS` in the folder `home`, outside of which nothing may be written.

    One process runs them all, one after another, as a server would; where it dies or hangs, another goes on.
    """
    told = home.parent / f"{home.name}.told"
    found: list[Found] = []
    while len(found) < len(commands):
        told.write_text("")
        process = started(
            partial(_run, [list(words) for words in commands[len(found) :]], home, told), said=None, **_user(home)
        )
        lines, seen = 0, time.monotonic()
        while process.is_alive() and time.monotonic() - seen < HANGS:
            process.join(0.2)
            if (now := told.read_text().count("\n")) > lines:
                lines, seen = now, time.monotonic()
        hung = process.is_alive()
        process.kill()
        process.join()
        rows = [json.loads(line) for line in told.read_text().splitlines()]
        found += [Found(**row) for row in rows]
        if len(found) < len(commands):
            found.append(Found(None if hung else process.exitcode, "", False, 0.0, 0.0, [], []))
    told.unlink()
    return found


def _user(home: Path) -> dict[str, str]:
    """Where a user's settings and caches are: in the folder too."""
    return {"HOME": str(home / "user"), "XDG_CACHE_HOME": str(home / "user"), "MPLCONFIGDIR": str(home / "user")}


def _run(commands: list[list[str]], home: Path, told: Path) -> None:
    from zoo.cli.main import run

    os.chdir(home)
    for name in ("tmp", "user"):
        (home / name).mkdir(exist_ok=True)
    tempfile.tempdir = str(home / "tmp")
    resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize") * 2**20) + ROOM, resource.RLIM_INFINITY))
    watch = Watch(home)
    with told.open("a") as file:
        for words in commands:
            stdout, stderr = io.StringIO(), io.StringIO()
            reset_peak()
            watch.begin()
            kept, began = memory("VmRSS"), time.process_time()
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                try:
                    watch.on = True
                    code = run(words)
                except SystemExit as ended:  # of the application itself, not of code that reads a file
                    code = ended.code if isinstance(ended.code, int) else 1
                except BaseException as error:
                    code = 1
                    stderr.write(f"error: unexpected {type(error).__name__}: {error}")
            watch.on = False
            seconds, grown = time.process_time() - began, memory("VmHWM") - kept
            if (home / CANARY).exists():
                (home / CANARY).unlink()
                watch.begun.append(CANARY)
            said = stderr.getvalue()[:20_000]
            values = Found(code, said, bool(stdout.getvalue().strip()), seconds, grown, watch.begun, watch.outside)
            file.write(json.dumps(values._asdict()) + "\n")
            file.flush()


class Watch:
    """Programs and connections that are begun, and files that are written outside a folder."""

    def __init__(self, home: Path) -> None:
        self.home, self.on = os.path.realpath(home), False
        self.begin()
        sys.addaudithook(self._hook)

    def begin(self) -> None:
        """Forget what was seen."""
        self.begun: list[str] = []
        self.outside: list[str] = []

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in BEGINS:
            self.begun.append(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            flags = arguments[2]
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._written(arguments[0])
        elif event in WRITES and isinstance(arguments[WRITES[event]], str | bytes | os.PathLike):
            # A rename replaces a link at its place and doesn't follow it.
            self._written(arguments[WRITES[event]], followed=event == "os.truncate")

    def _written(self, path: Any, *, followed: bool = True) -> None:
        self.on = False  # realpath calls the system too
        folder, name = os.path.split(os.fsdecode(path))
        place = os.path.realpath(os.fsdecode(path)) if followed else os.path.join(os.path.realpath(folder), name)
        self.on = True
        allowed = (self.home, "/dev/null", "/dev/shm")
        if not place.startswith(allowed) and "__pycache__" not in place:
            self.outside.append(place)


def memory(name: str) -> float:
    """A line of Linux's account of this process, in MiB: VmRSS is what it has, VmHWM what it had at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no line {name}")


def reset_peak() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5")
