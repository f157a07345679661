"""A hash of each image of a packed split, by which equal images are found.

<folder>/hashes.npy     uint64 (N,): 8 bytes of blake2b of each image as it is stored
"""

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from san.data.arrays import Pixels, load_array
from san.data.images import Images
from san.errors import DataError
from san.runtime.files import atomic_write

NAME = "hashes.npy"
Hashes = NDArray[np.uint64]
log = logging.getLogger(__name__)


def hash_image(data: Pixels) -> int:
    """Return the hash of an image as it is stored."""
    digest = hashlib.blake2b(np.ascontiguousarray(data).data, digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def load_hashes(folder: Path, images: Images, full: bool = False) -> Hashes:
    """Return the hashes of a packed split's images.

    They are computed, and stored, where there are none (splits of earlier versions), where they
    are damaged or older than the images, and if `full`.
    """
    if not full:
        stored = _read_stored(folder, len(images))
        if stored is not None:
            return stored
    log.info("%s: hashing %d images", folder, len(images))
    hashes = [hash_image(images.stored(i)) for i in range(len(images))]
    with contextlib.suppress(OSError):  # a read-only copy is hashed each time
        write_hashes(hashes, folder)
    return np.array(hashes, np.uint64)


def write_hashes(hashes: Sequence[int], folder: Path) -> None:
    """Store the hashes of a split's images beside them."""
    array = np.array(hashes, np.uint64)
    with atomic_write(folder / NAME) as unfinished, unfinished.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _read_stored(folder: Path, count: int) -> Hashes | None:
    """Return the stored hashes, if there are as many as images and they are not older."""
    try:
        hashes = load_array(folder / NAME)
        hashed = (folder / NAME).stat().st_mtime_ns
        written = (folder / "images.npy").stat().st_mtime_ns
    except (DataError, OSError):
        return None
    fits = hashes.dtype == np.uint64 and hashes.shape == (count,)
    return hashes if fits and written <= hashed else None
