"""The records of tfrecord files, read and checked without TensorFlow.

Each is a length (8 bytes), its checksum (4 bytes), the data, and its checksum (4 bytes).
Format: tensorflow/core/lib/io/record_writer.h, checksums: tensorflow/core/lib/hash/crc32c.h.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from san.errors import DataError, MissingPackageError, SanError
from san.installation import install_command
from san.runtime.files import open_regular


def read_tfrecord(path: Path) -> Iterator[bytes]:
    """Yield the records of a tfrecord file.

    Raises DataError, which names the file, where it is not a regular one, ends within a record, or
    does not match a checksum; MissingPackageError where the checksums cannot be computed.
    """
    crc32c = _load_crc32c()
    try:
        file = open_regular(path)
    except SanError as error:
        raise DataError(str(error)) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        while header := file.read(12):
            if len(header) < 12:
                raise _damaged(path, "is truncated")
            length, checksum = struct.unpack("<QI", header)
            if _mask(crc32c.value(header[:8])) != checksum:
                raise _damaged(path, "does not match its checksums")
            # Compared before it is read: that much memory would be asked for.
            if length + 4 > size - file.tell():
                raise _damaged(path, "is truncated")
            record = file.read(length)
            (checksum,) = struct.unpack("<I", file.read(4))
            if _mask(crc32c.value(record)) != checksum:
                raise _damaged(path, "does not match its checksums")
            yield record


def _mask(crc: int) -> int:
    """Return a checksum as it is stored: rotated right by 15 bits, plus a constant."""
    rotated = (crc >> 15) | (crc << 17)
    return (rotated + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}. Build or fetch it again.")


def _load_crc32c() -> Any:
    """Import google_crc32c; raise MissingPackageError, which says how to install it."""
    try:
        import google_crc32c  # type: ignore[import-not-found] # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MissingPackageError(
            "The checksums of tfrecord files need google-crc32c, which is not installed here "
            f"({error}). To install it: {install_command('tfds')}."
        ) from error
    return google_crc32c
