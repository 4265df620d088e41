"""The command line `zoo`: verbs, global options, and how failures are reported.

A failure is one sentence on stderr, the error's code in brackets behind it (docs/errors.md), and an exit code: 2 where
the request was wrong, 1 where a valid request could not be carried out, 130 after Ctrl-C, 143 where the system ends it
(SIGTERM), 129 where its terminal is gone (SIGHUP). `--json` adds an object with the code on stdout. A traceback is
shown with `--debug` only.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from zoo.acceleration.threads import prepare
from zoo.cli.say import say
from zoo.cli.wording import plainly
from zoo.schema.advice import on_command_line
from zoo.schema.errors import Terminated, UsageError, ZooError
from zoo.schema.version import __version__

# Every verb, one file each: its function. What is slow to import is imported inside them.
VERBS = {
    "generate": "zoo.cli.generate:generate",
    "prompts": "zoo.cli.prompts:prompts",
    "list": "zoo.cli.list:list_names",
    "describe": "zoo.cli.describe:describe",
    "check": "zoo.cli.check:check",
    "diff": "zoo.cli.diff:diff",
    "replay": "zoo.cli.replay:replay",
    "plot": "zoo.cli.plot:plot",
    "explain": "zoo.cli.explain:explain",
    "plan": "zoo.cli.plan:plan",
    "new": "zoo.cli.new:new",
    "train": "zoo.cli.train:train",
    "export": "zoo.cli.export:export",
    "convert": "zoo.cli.convert:convert",
    "data": "zoo.cli.data:data",
    "evaluate": "zoo.cli.evaluate:evaluate",
    "reproduce": "zoo.cli.reproduce:reproduce",
    "report": "zoo.cli.report:report",
    "doctor": "zoo.cli.doctor:doctor",
    "plugin": "zoo.cli.plugin:plugin",
    "bench": "zoo.cli.bench:bench",
}


# What mends it where the system refuses a file.
_MENDS = {
    (errno.EACCES, errno.EPERM, errno.EROFS): "; choose another place, or change its permissions",
    (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)): "; make room, or choose another place",
}


def make_app(verbs: Iterable[str] = VERBS) -> typer.Typer:
    """The application with these verbs, as far as their files are there."""
    app = typer.Typer(
        name="zoo", add_completion=False, pretty_exceptions_enable=False,
        rich_markup_mode=None,  # whose tables leave an option's help a third of a terminal
        help="A diffusion model zoo: pictures from prompts, and everything behind them.",
    )  # fmt: skip
    app.callback()(_globals)
    for verb in verbs:
        module, _, function = VERBS[verb].partition(":")
        if find_spec(module) is not None:
            found = getattr(import_module(module), function)
            # Each verb's sentence is given whole: what typer takes from it is cut off.
            if isinstance(found, typer.Typer):  # a verb with verbs of its own
                app.add_typer(found, name=verb, short_help=found.info.help)
            else:
                app.command(verb, short_help=" ".join(str(found.__doc__).partition("\n\n")[0].split()))(found)
    return app


def _globals(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
) -> None:
    """Options before the verb; `run` reads `--debug` itself, in any position."""


def run(arguments: Sequence[str]) -> int:
    """One command; returns the exit code."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    options = words[:end]
    debug = "--debug" in options
    words = [word for word in options if word != "--debug"] + words[end:]
    words = words or ["--help"]
    if words[:1] == ["--version"]:
        typer.echo(f"zoo {__version__}")
        return 0
    try:
        _stand_somewhere()
        # Each verb's options cost milliseconds to declare, so only the requested one is declared.
        command = typer.main.get_command(make_app(words[:1] if words[0] in VERBS else VERBS))
        with on_command_line(), plainly():
            result = command.main(args=words, prog_name="zoo", standalone_mode=False)
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
        # typer answers Ctrl-C with this code and says nothing.
        return _tell("interrupted", 130, debug) if code == 130 else code
    except BrokenPipeError:
        return _unheard()
    except Terminated as ended:
        return _tell("ended by the system; what was saved is whole", ended.status, debug)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # click's answer to one
            return _unheard()
        raise
    except KeyboardInterrupt:
        return _tell("interrupted", 130, debug)
    except ZooError as error:
        return _answer(error, options, debug)
    except OSError as error:
        where = f"'{os.fsdecode(error.filename)}': " if error.filename else ""
        mend = next((mend for codes, mend in _MENDS.items() if error.errno in codes), "")
        return _answer(ZooError(f"{where}{error.strerror or error}{mend}", code="system-refused"), options, debug)
    except Exception as error:
        if type(error).__name__ == "Abort":  # typer's Ctrl-C and end of input
            return _tell("interrupted", 130, debug)
        if hasattr(error, "format_message"):  # typer's own usage errors
            return _tell(error.format_message(), getattr(error, "exit_code", 2), debug)  # type: ignore[attr-defined]
        return _tell(f"unexpected {type(error).__name__}: {error}; run again with --debug to see where", 1, debug)


def _answer(error: ZooError, options: Sequence[str], debug: bool) -> int:
    if "--json" in options and not error.answered:
        said = {"schema": "zoo.error/1", "code": error.code, "error": str(error), "exit_code": error.exit_code}
        with contextlib.suppress(OSError):  # what stdout leads to may be what is full
            typer.echo(json.dumps(said))
    return _tell(f"{error} [{error.code}]", error.exit_code, debug)


def _stand_somewhere() -> None:
    """UsageError where the current folder was deleted: relative paths mean nothing there, and MKL ends the process."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the current folder was deleted; change to one that is there", code="current-folder-missing"
        ) from error


def _unheard() -> int:
    """`zoo list | head`: the reader has closed the pipe. Without this Python would print another error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _open_streams() -> None:
    """Let what is closed (`zoo list >&-`) lead nowhere: the next file would take its number, and be printed into."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _tell(sentence: str, code: int, debug: bool) -> int:
    if debug and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    # Untrusted names may hold control characters, which a terminal would interpret.
    line = "".join(c if c.isprintable() else " " for c in sentence)
    say(f"error: {line}")
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, which has been said: Python would try again at exit, and end with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _terminate(number: int, _: object) -> None:
    raise Terminated(number)


def main() -> None:
    """The entry point of the console script."""
    _open_streams()
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP, and nohup ignores it
        with contextlib.suppress(ValueError, AttributeError):  # not the main thread
            if signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
                signal.signal(getattr(signal, name), _terminate)
    for stream in (sys.stdout, sys.stderr):  # an ascii terminal, and names that aren't UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        prepare()  # before a verb imports torch
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before `run` listens for it, or while it says what happened
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
