"""Errors that a user can act on; each message says what came, what is allowed and what to do.

`san.cli` prints a SanError without a trace. Any other exception is a bug of ours and keeps its
trace. The second base of a kind is what a caller of the library would expect Python to raise.
"""

import difflib
from collections.abc import Collection

STOPPED_EXIT_CODE = 143  # of a process that was stopped by SIGTERM and has saved a checkpoint


class SanError(Exception):
    """What a user can act on."""


class UnknownNameError(SanError, LookupError):
    """A name that does not exist: of a method, task, option, file of a group."""


class InvalidValueError(SanError, ValueError):
    """A value, or a combination of values, that is not allowed."""


class UnsupportedModelError(SanError, TypeError):
    """A model in which no method can be attached, or not this one."""


class DataError(SanError, ValueError):
    """Images, labels or lists that are not what they should be."""


class FileAccessError(SanError, OSError):
    """A file or directory that cannot be read or written."""


class MissingFileError(SanError, FileNotFoundError):
    """A file or directory that is not there."""


class MissingPackageError(SanError, ModuleNotFoundError):
    """An optional package that is not installed."""


class NotPreparedError(SanError, FileNotFoundError):
    """A task whose images are not packed yet.

    bytes_needed: what they will take on the disk, or 0 where that is not known.
    """

    def __init__(self, message: str, bytes_needed: int | None) -> None:
        super().__init__(message)
        self.bytes_needed = bytes_needed or 0


class WeightsError(SanError, RuntimeError):
    """Pre-trained weights that cannot be had: missing, corrupt, or of another model."""


class NonFiniteLossError(SanError, RuntimeError):
    """The training loss became NaN or infinite."""


class TimeLimitError(SanError, TimeoutError):
    """A run that took longer than `max_hours`."""


class RecordError(SanError, ValueError):
    """A file that is not a record of this version."""


class AdapterFileError(SanError, ValueError):
    """A file that is not a saved adapter, or not one of this model."""


class LaunchError(SanError, RuntimeError):
    """A sweep that an engine (SLURM, Ray) would not take."""


class Preempted(BaseException):
    """The run was stopped by a signal and has saved a checkpoint.

    A BaseException, so that `except Exception` does not take it for a failure.
    """


def choose(name: str, known: Collection[str], what: str) -> str:
    """Return `name` if it is known.

    Raise UnknownNameError that says what came, what is near and what is allowed.
    """
    if name in known:
        return name
    allowed = ", ".join(known) or "none"
    raise UnknownNameError(f"Unknown {what} '{name}'.{suggest(name, known)} Allowed: {allowed}.")


def suggest(name: object, known: Collection[str]) -> str:
    """Return " Did you mean a or b?" with the names most like `name`, or nothing."""
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""
