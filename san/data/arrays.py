"""Arrays in .npy files, whose headers are compared with their sizes before they are believed."""

import io
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from san.errors import DataError, SanError
from san.runtime.files import open_regular

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

_HEADER_BYTES = 128  # a fixed size, as the true shape is known only at the end


def load_array(path: Path, mapped: bool = False) -> NDArray[Any]:
    """Return the array of a .npy file.

    mapped: read-only, and read from the file when it is taken. Raises DataError, which names the
    file, where it is not a regular file, or not as long as its header says.
    """
    try:
        with open_regular(path) as file:
            _check_size(file)
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except SanError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # whatever numpy stumbles on in a header
        raise DataError(f"{path.name} cannot be read ({error})") from error
    return array


def _check_size(file: BinaryIO) -> None:
    """Raise ValueError unless a .npy file has as many bytes as its header says."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    if is_fortran:
        raise ValueError("its order is Fortran's")
    found = os.fstat(file.fileno()).st_size - file.tell()
    expected = math.prod(shape) * dtype.itemsize
    if found != expected:
        raise ValueError(f"it has {found} bytes of data; its header says {expected}")


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a uint8 .npy file, which takes 128 bytes whatever the shape."""
    buffer = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(buffer, facts)
    header = buffer.getvalue()
    magic = header[:8]
    description = header[10:].rstrip(b" \n")
    # Bytes 8 and 9 are the length of the description, which ends with a newline.
    length = _HEADER_BYTES - 10
    file.write(magic + length.to_bytes(2, "little"))
    file.write(description.ljust(length - 1) + b"\n")
