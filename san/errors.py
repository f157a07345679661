"""Errors that a user can act on; each message says what came, what is allowed and what to do."""

import difflib
from collections.abc import Collection


class WeightsError(RuntimeError):
    """Pre-trained weights that cannot be had: missing, corrupt, or of another model."""


class NotPreparedError(FileNotFoundError):
    """A task whose images are not packed yet. needs: what they will take on the disk, in bytes, where it is known."""

    def __init__(self, message: str, needs: int | None) -> None:
        super().__init__(message)
        self.needs = needs or 0


class NonFiniteLossError(RuntimeError):
    """The training loss became NaN or infinite."""


class RecordError(ValueError):
    """A file that is not a record of this version."""


class AdapterFileError(ValueError):
    """A file that is not a saved adapter, or not one of this model."""


class Preempted(BaseException):
    """The run was told to stop, and has saved itself. No Exception, as nothing has failed."""


class LaunchError(RuntimeError):
    """A sweep that an engine would not take."""


def choose(name: str, known: Collection[str], what: str) -> str:
    """Return `name` if it is known; raise LookupError that says what came, what is near and what is allowed."""
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise LookupError(f"Unknown {what} '{name}'.{hint} Allowed: {', '.join(known) or 'none'}.")
