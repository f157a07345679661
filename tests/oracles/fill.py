"""The formula behind every tensor of the oracles: values from a name and a flat index, no seed."""

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1


def fill(key: str, shape: Sequence[int], offset: float, amp: float) -> NDArray[np.float64]:
    """Return float64 `shape`: offset + amp * u.

    u in [-1, 1) is hashed (splitmix64) from crc32(key) and the flat index.
    """
    start = (zlib.crc32(key.encode()) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & MASK
    z = np.arange(int(np.prod(shape)), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(
        start
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**53
    return (offset + amp * (2.0 * unit - 1.0)).reshape(shape)
