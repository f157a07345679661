"""Paths that a user gives: to images, to weights, or to where packed images are."""

import hashlib
import os
import re
from pathlib import Path

from san.errors import FileAccessError


def expand_path(path: str | Path) -> Path:
    """Return a path with the home folder for its `~`, whether or not something is there.

    Raises FileAccessError, which names it, where the system does not let it be looked at: its name
    is too long, nobody has that home folder, or it is a folder that may not be entered, or in one.
    """
    try:
        expanded = Path(path).expanduser()
        expanded.stat()
    except (FileNotFoundError, NotADirectoryError):
        return expanded
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: of expanduser
        reason = error.strerror if isinstance(error, OSError) else None
        raise _unreadable(path, reason or str(error).rstrip(".")) from error
    if expanded.is_dir() and not os.access(expanded, os.X_OK):
        raise _unreadable(path, "you may not enter it")
    return expanded


def printable_path(path: str) -> str:
    """Return a path as text that every file and terminal can hold.

    Bytes that are not UTF-8, which names of files may have, are written as escapes.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def folder_key(root: str | Path, name: str | None = None) -> str:
    """Return what tells a user's folder apart: its name, and six digits of its path.

    name: that the user gave it, or else the folder's own, of characters that every file may have.
    """
    path = expand_path(root).resolve()
    text = printable_path(str(path))
    digits = hashlib.sha256(text.encode()).hexdigest()[:6]
    if name is None:
        name = re.sub(r"[^\w. -]", "_", printable_path(path.name)).lstrip(". ")
    return name if name.endswith(f"-{digits}") else f"{name}-{digits}"


def _unreadable(path: str | Path, reason: str) -> FileAccessError:
    return FileAccessError(
        f"{path} cannot be looked at ({reason}). "
        "Give a path that you may read, or ask the owner for the permission."
    )
