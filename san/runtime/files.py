"""Files that are complete or not there at all; and files of others, read within bounds."""

import contextlib
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import yaml

from san.errors import FileAccessError, InvalidValueError, MissingFileError, SanError
from san.runtime.formatting import format_bytes

T = TypeVar("T")
MAX_BYTES = 2**28  # of a file that is read as a whole: far more than any list, record or photograph


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; it replaces `path` once the block ends without an error.

    Readers see the old file or the complete new one, also after a crash, as the new one is synced
    to the disk first. If the block raises, nothing is left behind. The directory is created. Who
    may read the file is what the user's umask says, whatever the block does to the temporary one.
    Raises FileAccessError that names the file where the system refuses it (a full disk).

    The temporary name is hidden and ends in `.tmp`, so that no search for `*.json` finds a record
    that is half written: tell a library that goes by the suffix (matplotlib) the format.
    """
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    with refused_by_system(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.touch()
            mode = stat.S_IMODE(unfinished.stat().st_mode)
            yield unfinished
            unfinished.chmod(mode)  # safetensors makes private files
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


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file atomically."""
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(content)


def check_writable(path: Path) -> None:
    """Raise FileAccessError unless a file can be written to `path`, in place of what is there.

    What somebody else has written there, and may not be read, is not replaced.
    """
    if path.is_dir():
        raise FileAccessError(
            f"{path} is a directory; a run writes a file there. "
            "Move it away, or give results_dir=DIRECTORY."
        )
    if path.exists() and not os.access(path, os.R_OK):
        raise FileAccessError(
            f"{path} is there, and may not be read by you. Ask its owner for `chmod a+r {path}`, "
            "or give results_dir=DIRECTORY."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise FileAccessError(
            f"{path.parent} cannot be written ({error.strerror}). "
            "Give results_dir=DIRECTORY that can."
        ) from error


def check_regular(path: Path) -> None:
    """Raise FileAccessError, which says what is there, unless `path` is a regular file.

    Opening anything else (a FIFO, a terminal) may wait for ever. Links are followed. Raises
    MissingFileError where nothing is there, or a link that leads to nothing.
    """
    _check_mode(path, _stat(path).st_mode)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read its bytes; refuse anything else, see `check_regular`."""
    check_regular(path)
    try:
        # Between the check and this line it may become a FIFO, which must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from error
    file = os.fdopen(descriptor, "rb")
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises MissingFileError where there is none, and FileAccessError, which names it, where it is
    larger, something else than a regular file, or cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise FileAccessError(
                    f"{path} cannot be read: it has {format_bytes(size)}; "
                    f"at most {format_bytes(limit)} are allowed."
                )
            return file.read()
    except SanError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """Return a text file (UTF-8, whatever the locale); errors as in `read_bytes`."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as error:
        raise FileAccessError(f"{path} cannot be read: it is no UTF-8 text ({error}).") from error


def read_json(path: Path, kind: type[T] | Any = Any, limit: int = MAX_BYTES) -> T:
    """Return the JSON in a file as a `kind`, checked by msgspec.

    NaN, infinity, surrogates and a nesting that exhausts the stack are refused, too. Errors as in
    `read_bytes`.
    """
    content = read_bytes(path, limit)
    try:
        value: T = parse_json(content, kind)
    except InvalidValueError as error:
        raise FileAccessError(f"{path} cannot be read: {error}") from error
    return value


def read_yaml(path: Path) -> Any:
    """Return the YAML in a file; errors as in `read_bytes`."""
    try:
        return yaml.safe_load(read_text(path))
    except SanError:
        raise
    # PyYAML fails in Python's words on `!!bool foo`, and deep nesting ends at the stack.
    except (ValueError, LookupError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise FileAccessError(f"{path} cannot be read: {error}") from error


def parse_json(content: bytes | str, kind: type[T] | Any = Any) -> T:
    """Return JSON as a `kind`; raise InvalidValueError for whatever is wrong with it."""
    try:
        value: T = msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidValueError(f"it is not the JSON that is expected ({error}).") from error
    return value


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "is a link to a file that is not there" if path.is_symlink() else "does not exist"
        raise MissingFileError(f"{path} {what}.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in a name
        raise _unreadable(path, error) from error


def _check_mode(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_ISDIR: "a directory",
        stat.S_ISFIFO: "a FIFO",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    found = next((name for is_kind, name in kinds.items() if is_kind(mode)), "no file")
    raise FileAccessError(f"{path} is {found}; a regular file is allowed. Move it away.")


def _unreadable(path: Path, error: OSError | ValueError) -> FileAccessError:
    reason = error.strerror if isinstance(error, OSError) else None
    return FileAccessError(f"{path} cannot be read ({reason or error}).")


def _sync(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
