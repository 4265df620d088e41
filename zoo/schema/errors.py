"""Every error zoo raises on purpose: one sentence that names the thing and the fix, and a stable code.

`UsageError` means the request was wrong (exit code 2); any other `ZooError` means a valid request could
not be carried out (exit code 1). All are `ValueError`, so callers need not know this module. A sentence may be
worded anew in any version; `error.code` says what is wrong in words that stay, and docs/errors.md lists them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class ZooError(ValueError):
    """A failure with a clear sentence; the command line prints it without a traceback and exits with 1."""

    exit_code = 1
    answered = False  # a verb has printed its own JSON for it already

    def __init__(self, sentence: str, *, code: str = "unclassified") -> None:
        """The sentence, and what is wrong as kebab-case words, like "steps-out-of-range"; a plugin's may have none."""
        super().__init__(sentence)
        self.code = code

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence and the code, without the calls inside zoo that led there."""
        return [f"{type(self).__name__}: {self} [{self.code}]"]

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled with its code, so that it comes whole out of another process."""
        return _again, (type(self), str(self), self.code), self.__dict__


def _again(kind: type[ZooError], sentence: str, code: str) -> ZooError:
    return kind(sentence, code=code)


class UsageError(ZooError):
    """The request itself is wrong (a name, an option, a prompt, a size); the command line exits with 2."""

    exit_code = 2


class Terminated(SystemExit):
    """The system ends the command (SIGTERM, SIGHUP): cleanup runs, and it isn't reported as an error."""

    def __init__(self, number: int = 15) -> None:
        """The process exits with 128 and the signal's number wherever this ends it."""
        self.status = 128 + number
        super().__init__(self.status)


class RequestNote(UserWarning):
    """A warning about an unusual request that is carried out all the same."""


class ConfigError(UsageError):
    """A config, preset, card or recipe says something that can't be built."""


class WeightsError(ZooError):
    """A weight file is missing, damaged, or not the one its card describes."""


class NumericError(ZooError):
    """A network or a loss produced NaN or infinity."""


@contextlib.contextmanager
def model_read(what: object) -> Iterator[None]:
    """What code stumbles over that reads the configurations and shapes of a model's file: a WeightsError that names it.

    Such a file may hold a list where a number is meant, in any of a hundred places.
    """
    try:
        yield
    except ZooError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"'{what}' says what no model of its kind does ({type(error).__name__}: {said}); get it from its publisher "
            "again",
            code="model-config-unreadable",
        ) from error
