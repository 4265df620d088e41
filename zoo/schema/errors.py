"""Every error zoo raises on purpose: one sentence that names the thing and the fix.

`UsageError` means the request was wrong (exit code 2); any other `ZooError` means a valid request could
not be carried out (exit code 1). All are `ValueError`, so callers need not know this module.
"""


class ZooError(ValueError):
    """A failure with a clear sentence; the command line prints it without a traceback and exits with 1."""

    exit_code = 1


class UsageError(ZooError):
    """The request itself is wrong (a name, an option, a prompt, a size); the command line exits with 2."""

    exit_code = 2


class RequestNote(UserWarning):
    """A warning about an unusual request that is carried out all the same."""


class ConfigError(UsageError):
    """A config, preset, card or recipe says something that can't be built."""


class WeightsError(ZooError):
    """A weight file is missing, damaged, or not the one its card describes."""


class NumericError(ZooError):
    """A network or a loss produced NaN or infinity."""
