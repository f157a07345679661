"""What reading all images of a packed split has proved, kept so that it is not read again.

<folder>/hashes.npy     uint64 (N,): 8 bytes of blake2b of each image as it is stored
<folder>/proved.json    the digests of images and hashes; sizes and times of the images' files

Both are made again wherever one of them does not fit. Only somebody who writes a proof of his own
on this machine is believed, until `make verify` reads everything again.
"""

import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san.data.arrays import Pixels, load_array
from san.data.images import Images
from san.data.manifest import sha256_16
from san.errors import SanError
from san.runtime.files import atomic_write, read_json, write_text

HASHES_FILE = "hashes.npy"
PROOF_FILE = "proved.json"
Hashes = NDArray[np.uint64]
log = logging.getLogger(__name__)


def prove_images(folder: Path, images: Images, digest: str, recheck: bool) -> Hashes | None:
    """Return a hash of each image of a packed split, or None where they are not those of `digest`.

    Images that were read before, on this machine, are recognised by their files, and their hashes
    by the proof that they were stored with, unless `recheck`. In a read-only copy they are read
    each time.
    """
    proof = {"pixels": digest, "files": _file_states(folder, images)}
    if not recheck:
        hashes = _read_proved(folder, proof, len(images))
        if hashes is not None:
            return hashes
    log.info("%s: reading %d images", folder, len(images))
    found, hashes = digest_and_hashes(images)
    if found != digest:
        return None
    with contextlib.suppress(OSError):  # a read-only copy
        _write_hashes(folder / HASHES_FILE, hashes)
        write_text(json.dumps(proof | {"hashes": _hashes_digest(hashes)}), folder / PROOF_FILE)
    return hashes


def digest_and_hashes(images: Images) -> tuple[str, Hashes]:
    """Return the digest of all images, with their offsets where there are any, and their hashes."""
    digest = hashlib.sha256()
    hashes = np.empty(len(images), np.uint64)
    for i in range(len(images)):
        image = images.stored(i)
        digest.update(np.ascontiguousarray(image).data)
        hashes[i] = hash_image(image)
    # Where each file begins matters as much as its bytes.
    if images.offsets is not None:
        digest.update(images.offsets.astype("<i8").data)
    return digest.hexdigest()[:16], hashes


def hash_image(image: Pixels) -> int:
    """Return the hash of an image as it is stored."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _read_proved(folder: Path, proof: dict[str, Any], count: int) -> Hashes | None:
    """Return the stored hashes, if they are those of the proof, and it is one of these images."""
    try:
        stored: object = read_json(folder / PROOF_FILE)
        hashes = load_array(folder / HASHES_FILE)
    except SanError:
        return None
    fits = hashes.dtype == np.uint64 and hashes.shape == (count,)
    is_proved = stored == proof | {"hashes": _hashes_digest(hashes)}
    return hashes if fits and is_proved else None


def _hashes_digest(hashes: Hashes) -> str:
    return sha256_16(np.ascontiguousarray(hashes).data)


def _write_hashes(path: Path, hashes: Hashes) -> None:
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, hashes, allow_pickle=False)


def _file_states(folder: Path, images: Images) -> list[list[int]]:
    """Return what changes with the images' files; a copy is read anew."""
    files = [folder / "images.npy"]
    if images.offsets is not None:
        files.append(folder / "offsets.npy")
    states = []
    for file in files:
        stat = file.stat()
        # Nobody can set the last of the three.
        states.append([stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    return states
