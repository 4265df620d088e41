"""Checks and their outcomes.

A check is a name, a promise in one sentence and a function that takes a `Subject` and returns, raises
`Fault` (what it saw, and the fix) or `NotAsked` (why the promise doesn't apply to this component). Whatever else a
component raises on the way is a fault too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from zoo.schema.errors import Terminated, ZooError

SCHEMA = "zoo.conformance/1"


class Fault(Exception):
    """A broken promise: what was seen, and the fix."""

    def __init__(self, seen: str, mend: str) -> None:
        super().__init__(f"{seen}; {mend}")
        self.seen, self.mend = seen, mend


class NotAsked(Exception):
    """Why a promise doesn't apply to this component."""


@dataclass(frozen=True)
class Subject:
    """A component to be examined: how to make one, and its declared arguments."""

    kind: str
    name: str
    make: Callable[..., Any]  # takes further arguments
    arguments: Mapping[str, Any] = field(default_factory=dict)  # defaults, and over them those it is made with

    def fact(self, made: Any, *names: str) -> Any:
        """The first of these that the component has as an attribute, or else was made with; None if none is there."""
        for name in names:
            value = getattr(made, name, None)
            if value is not None:
                return value
        return next((self.arguments[n] for n in names if self.arguments.get(n) is not None), None)

    def number(self, made: Any, name: str) -> int:
        """A whole number that a component of this kind must declare."""
        value = self.fact(made, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Fault(f"it doesn't say its {name}", f"set self.{name} to a whole number where it is built")
        return value


@dataclass(frozen=True)
class Check:
    """A promise and its check; `run` may return a remark, such as a measured number."""

    name: str
    promise: str
    run: Callable[[Subject], str | None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check of one component; `said` is what was seen, or a remark."""

    kind: str
    name: str
    check: str
    state: Literal["passed", "failed", "not asked"]
    promise: str
    said: str = ""
    mend: str = ""

    def __str__(self) -> str:
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.kind}/{self.name}, {self.check}: {self.said or self.state}{mend}"


@dataclass(frozen=True)
class Report:
    """The outcomes of a package or a component; `str()` is for people, `to_dict()` for programs."""

    subject: str
    outcomes: tuple[Outcome, ...]
    version: str | None = None

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The broken promises."""
        return tuple(o for o in self.outcomes if o.state == "failed")

    @property
    def ok(self) -> bool:
        """Whether every promise that applies is kept."""
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        outcomes = [asdict(o) for o in self.outcomes]
        return {
            "schema": SCHEMA, "subject": self.subject, "version": self.version, "ok": self.ok, "outcomes": outcomes,
        }  # fmt: skip

    def __str__(self) -> str:
        kept = sum(o.state == "passed" for o in self.outcomes)
        return "\n".join([f"{self.subject}: {kept} promises kept, {len(self.failed)} broken", *map(str, self.failed)])


def hold(checks: Iterable[Check], subject: Subject) -> tuple[Outcome, ...]:
    """The outcomes of some checks; a failing one stops no other."""
    outcomes = []
    for check in checks:
        state, said, mend = "passed", "", ""
        try:
            said = check.run(subject) or ""
        except NotAsked as reason:
            state, said = "not asked", str(reason)
        except Fault as fault:
            state, said, mend = "failed", fault.seen, fault.mend
        except (KeyboardInterrupt, Terminated):
            raise
        except ZooError as error:
            state, said, mend = "failed", f"it is refused: {error}", "give it an `example` that can be used, or mend it"
        except BaseException as error:  # a plugin may raise anything, even SystemExit
            state, said = "failed", f"{type(error).__name__}: {error}"
            mend = f"mend what raises it{_where(error)}"
        outcomes.append(Outcome(subject.kind, subject.name, check.name, state, check.promise, said, mend))  # type: ignore[arg-type]
    return tuple(outcomes)


def _where(error: BaseException) -> str:
    """The last line of the traceback that isn't ours, or the last there is."""
    trace, place = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in ("zoo", "torch", "numpy"):
            place = trace
        trace = trace.tb_next
    return "" if place is None else f", in {place.tb_frame.f_code.co_filename}, line {place.tb_lineno}"
