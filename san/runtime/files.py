"""Files that are complete or not there at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from san.errors import FileAccessError, SanError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; it replaces `path` once the block ends without an error.

    Readers see the old file or the complete new one, also after a crash, as the new one is synced
    to the disk first. If the block raises, nothing is left behind. The directory is created.
    Raises FileAccessError that names the file where the system refuses it (a full disk).

    The temporary name is hidden and ends in `.tmp`, so that no search for `*.json` finds a record
    that is half written: tell a library that goes by the suffix (matplotlib) the format.
    """
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    with refused_by_system(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            _sync(unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def refused_by_system(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a FileAccessError that names `path`."""
    try:
        yield
    except SanError:
        raise
    except OSError as error:
        raise FileAccessError(f"{path} cannot be written ({error.strerror or error}).") from error


def write_text(text: str, path: Path) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
