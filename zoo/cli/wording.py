"""What is wrong with a command's words, in zoo's: typer's own sentences are those of a validating library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from zoo.schema.errors import UsageError

_NUMBERS = {"int": "a whole number", "float": "a number"}


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Raise typer's usage errors of the block as zoo's, with a code."""
    try:
        yield
    except Exception as error:
        told = _told(error) if hasattr(error, "format_message") else None
        if told is None:
            raise
        raise told from error


def _told(error: Any) -> UsageError | None:
    kind, param = type(error).__name__, getattr(error, "param", None)
    command = getattr(getattr(error, "ctx", None), "command_path", "zoo")
    if kind == "MissingParameter" and param is not None:
        what = f" ({param.help.rstrip('.')})" if getattr(param, "help", None) else ""
        return UsageError(f"`{command}` needs {_name(param)}{what}; see {command} --help", code="option-missing")
    if kind == "NoSuchOption":
        near = next(iter(sorted(error.possibilities or (), key=len)), None)
        near = next((word for word in error.possibilities or () if sorted(word) == sorted(error.option_name)), near)
        meant = f", did you mean {near}?" if near else ";"
        return UsageError(
            f"`{command}` has no option {error.option_name}{meant} see {command} --help", code="option-unknown"
        )
    if kind == "BadOptionUsage":
        takes = "needs a value" if "requires" in error.message else "takes no value"
        return UsageError(f"{error.option_name} {takes}", code="option-value-invalid")
    if kind == "BadParameter" and param is not None:
        return UsageError(_wrong_value(error, param), code="option-value-invalid")
    if error.message.startswith("No such command") or error.message.startswith("Missing command"):
        return UsageError(_command(error, command), code="command-unknown")
    if error.message.startswith("Got unexpected extra argument"):
        extra = error.message.rpartition("(")[2].rstrip(")")
        return UsageError(
            f"`{command}` takes no more words, and '{extra}' is left; quote what has spaces",
            code="option-value-invalid",
        )
    return None


def _name(param: Any) -> str:
    """`--seed`, or `FOLDER`."""
    if param.param_type_name == "option":
        return max(param.opts, key=len)
    return str(param.metavar or param.name).strip("[].{}").upper()


def _wrong_value(error: Any, param: Any) -> str:
    """`--seed takes a whole number, not 'abc'`."""
    found: Mapping[str, Any] = {}
    with contextlib.suppress(AttributeError, IndexError):  # of a typer that checks values otherwise
        found = error.__cause__.errors()[0]
    if not found:
        return f"{_name(param)}: {error.message.rstrip('.')}"
    value, (number, _, _), limits = found["input"], found["type"].partition("_"), found.get("ctx") or {}
    type_ = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    enumerated = isinstance(type_, type) and issubclass(type_, Enum)
    choices = [str(choice.value) for choice in type_] if enumerated else ()
    if choices:
        from zoo.schema.unknown import unknown

        return unknown(_name(param), value, choices)
    ends = [f"of {limits[key]:g} or {word}" for key, word in (("ge", "more"), ("le", "less")) if key in limits]
    number = getattr(type_, "__name__", number)
    takes = " ".join([_NUMBERS.get(number, "another value"), *ends])
    return f"{_name(param)} takes {takes}, not {str(value)!r}"


def _command(error: Any, path: str) -> str:
    from zoo.schema.unknown import unknown

    known = error.ctx.command.list_commands(error.ctx)
    if error.message.startswith("Missing"):
        return f"`{path}` needs one of {', '.join(known)}; see {path} --help"
    return unknown("command", error.message.split("'")[1], known)
