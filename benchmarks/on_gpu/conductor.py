"""Phases that share a time, each in a process of its own.

A process is what can be ended: one row that hangs, or that leaves the device in a state where nothing works any more,
costs itself and no other. What a process was doing stands in its record (`run.doing`), so the row is written as failed
and the next process goes on behind it. Time that a phase leaves over goes to those after it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.on_gpu.phase import SUITES, suite_of
from benchmarks.peers import ROW_KINDS
from benchmarks.peers.ahead import environment
from zoo.acceleration import threads
from zoo.bench import record
from zoo.bench.run import pending
from zoo.bench.suite import read_suite
from zoo.schema.errors import UsageError
from zoo.schema.files import write_atomically

# Of eight minutes, in seconds; in this order. Speed comes last, after what was compiled for it ahead.
SHARES = {"correct": 90.0, "train": 150.0, "quality": 85.0, "speed": 135.0}
RESERVE = 10.0  # seconds for the table and the files, at the end
TIMED = ("quality", "speed")
LEAST = 12.0  # seconds under which no process is started: torch alone takes some of them
GRACE = 10.0  # seconds after a deadline until the process is ended
CPU_GRACE = 120.0  # a CPU's time isn't billed, and a busy machine is slow
# Processes run side by side: a thread that waits sleeps, and a compiler has half of the cores.
THREADS = {threads.SPIN: threads.TURNS, "TORCHINDUCTOR_COMPILE_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}
START = time.monotonic()
KEPT = 40  # lines of a process that are kept for its reason


@dataclass
class Phase:
    """The result of a phase."""

    name: str
    seconds: float = 0.0
    reason: str | None = None  # why it, or the rest of it, was not run
    record: dict[str, Any] | None = None


@dataclass
class Conductor:
    """Runs the phases; everything they write is under `out`."""

    out: Path
    device: str
    seconds: float
    tiny: bool = False
    data: str | None = None
    start: str | None = None  # a folder of weights that an earlier call trained
    after: Path | None = None  # an earlier record
    phases: Sequence[str] = tuple(SHARES)
    began: float = field(default_factory=time.monotonic)
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    prepared: dict[str, tuple[subprocess.Popen[str], Lines]] = field(default_factory=dict)  # waiting for their turn
    interrupted: bool = False  # Ctrl-C, or ended from outside: the phases after it were not run

    def run(self) -> list[Phase]:
        """Every phase, in order; whatever happens, nothing that it started is left running.

        Ctrl-C ends the phase that runs and keeps what it measured so far.
        """
        found: list[Phase] = []
        # On a CPU nothing that takes long is compiled (benchmarks.peers), and two cores have enough to do.
        beside = not self.device.startswith("cpu") and self.seconds - RESERVE > LEAST
        ahead: subprocess.Popen[str] | None = None
        try:
            if beside and "train" in self.phases[1:] and self.data is not None:
                self._prepare("train")
            if beside and "speed" in self.phases[1:]:
                ahead = self._ahead(self.seconds)
            for place, name in enumerate(self.phases):
                whole = self.seconds - RESERVE
                if ahead is not None and name in TIMED:
                    end(ahead)
                if beside and name not in TIMED:  # they load while nothing is timed
                    for later in self._timed_next(place):
                        self._prepare(later)
                left = whole - (time.monotonic() - self.began)
                mine = left * SHARES[name] / sum(SHARES[other] for other in self.phases[place:])
                # A phase gets at least its share, also where those before it took too long.
                promised = whole * SHARES[name] / sum(SHARES[other] for other in self.phases)
                found.append(self._phase(name, max(mine, min(promised, LEAST))))
        except KeyboardInterrupt:
            self.interrupted, name = True, self.phases[len(found)]
            found.append(Phase(name, reason="it was interrupted", record=newest(self.out / "work" / name)))
        finally:
            for child in self.children:
                end(child)
        return found

    def _timed_next(self, place: int) -> list[str]:
        """The phases that are timed, where one comes next."""
        following = list(self.phases[place + 1 :])
        return [name for name in following if name in TIMED] if following[:1] and following[0] in TIMED else []

    def _phase(self, name: str, seconds: float) -> Phase:
        phase, began = Phase(name), time.monotonic()
        folder = self.out / "work" / name
        if seconds < LEAST:
            phase.reason = f"{max(seconds, 0):.0f} s are left for it and it needs {LEAST:.0f}; give more --minutes"
            say(name, phase.reason)
            return phase
        phase.reason, known = self._process(name, folder, seconds), 0
        # A process that was ended or died leaves rows behind those that it added; one that added none would go on so.
        while phase.reason is not None and name in SUITES:
            self._blame(name, folder, phase.reason)
            known, before = settled(newest(folder)), known
            left = seconds - (time.monotonic() - began)
            if known <= before or left < LEAST:
                break
            phase.reason = self._process(name, folder, left)
        phase.record, phase.seconds = newest(folder), round(time.monotonic() - began, 2)
        return phase

    def _blame(self, name: str, folder: Path, reason: str) -> None:
        """Record what a process was at as failed: rows that it hadn't written; of one that it had, its judgement."""
        found = newest(folder)
        doing = None if found is None else found["run"]["doing"]
        if found is None or doing is None:
            return
        say(name, f"{', '.join(doing['names'])}: {reason}")
        for row in (row for row in found["rows"] if row["id"].partition("-")[0] in doing["rows"]):
            if pending(row):
                row["quality"]["reason"] = f"not judged: {reason}"
            elif row["status"] == "measured":
                row["notes"].append(f"its process ended after this: {reason}")
        there = {row["id"].partition("-")[0] for row in found["rows"]}
        rows = read_suite(suite_of(name, device=self.device, tiny=self.tiny), kinds=ROW_KINDS).rows
        found["rows"] += [
            record.row_of(row, "failed", reason) for row in rows if row.id in doing["rows"] and row.id not in there
        ]  # fmt: skip
        found["run"]["doing"] = None
        record.write(found, folder)

    def _process(self, name: str, folder: Path, seconds: float) -> str | None:
        """Run one process of a phase; None where it ended well, else why it didn't."""
        say(name, f"{seconds:.0f} s")
        ready = self.prepared.pop(name, None)
        if ready is None or ready[0].poll() is not None:  # it died while it waited
            ready = self._started(name, self.command(name, folder, seconds))
        child, lines = ready
        if self._turn(name).parent.is_dir():
            write_atomically(self._turn(name), f"{time.time() + seconds:.1f}".encode())
        grace = GRACE if self.device.startswith("cuda") else CPU_GRACE
        last = time.time() + seconds + grace
        while child.poll() is None:
            time.sleep(0.2)
            doing = ((newest(folder) or {}).get("run") or {}).get("doing") or {}
            if time.time() > min(last, (doing.get("until") or last) + grace):
                end(child)
                return "it ran past its deadline and was ended"
        lines.join()
        if child.returncode == 0:
            return None
        said = next((line for line in reversed(lines.kept) if line.strip()), "")
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        return f"its process ended with {how}: {said.strip()[:300]}"

    def _started(self, name: str, words: Sequence[str]) -> tuple[subprocess.Popen[str], Lines]:
        child = started(words, cache=self.out / "work")
        self.children.append(child)
        return child, Lines(name, child)

    def _prepare(self, name: str) -> None:
        """Start a phase's process before its turn: it loads (and compiles), and waits for the time until it may run."""
        folder = self.out / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        words = [*self.command(name, folder, self.seconds), "--wait", str(self._turn(name))]
        self.prepared[name] = self._started(name, words)

    def _turn(self, name: str) -> Path:
        return self.out / "work" / name / "turn"

    def command(self, name: str, folder: Path, seconds: float) -> list[str]:
        """What a phase's process is started with."""
        words = [sys.executable, "-m", f"benchmarks.on_gpu.{'phase' if name in SUITES else name}"]
        words += [name] if name in SUITES else []
        words += ["--device", self.device, "--out", str(folder), "--seconds", f"{seconds:.1f}"]
        words += ["--tiny"] if self.tiny else []
        words += [] if self.data is None else ["--data", self.data]
        words += ["--start", self.start] if name == "train" and self.start is not None else []
        words += ["--after", str(self.after)] if name in SUITES and self.after is not None else []
        return words

    def _ahead(self, seconds: float) -> subprocess.Popen[str]:
        """Compiles what `speed` uses, beside phases in which no speed is compared."""
        words = [sys.executable, "-m", "benchmarks.on_gpu.ahead", "--device", self.device]
        words += ["--cache", str(self.out / "work"), "--seconds", f"{seconds:.0f}", *(["--tiny"] if self.tiny else [])]
        return self._started("ahead", words)[0]


def settled(found: Mapping[str, Any] | None) -> int:
    """Rows of a record that a further process doesn't measure again."""
    return sum(row["status"] != "not reached" and not pending(row) for row in found["rows"]) if found else 0


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest record in a folder."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            return record.read(path)
        except UsageError:
            continue
    return None


def started(words: Sequence[str], *, cache: Path) -> subprocess.Popen[str]:
    """A process in a group of its own; what it compiles is kept in `cache` for the others."""
    return subprocess.Popen(
        list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True, env={**os.environ, **environment(cache), **THREADS, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def end(child: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class Lines:
    """A process's lines, printed as they come; the last are kept."""

    def __init__(self, name: str, child: subprocess.Popen[str]) -> None:
        self.name, self.child, self.kept = name, child, deque[str](maxlen=KEPT)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.kept.append(line)
            say(self.name, line.rstrip())

    def join(self) -> None:
        """Wait for the last line."""
        self._thread.join(timeout=5.0)


def say(name: str, text: str) -> None:
    """A line of progress, after the seconds since the start."""
    print(f"{time.monotonic() - START:5.0f} [{name}] {text}", file=sys.stderr, flush=True)
