"""What reading all images of a packed split has proved, kept so that it is not read again.

<folder>/hashes.npy        uint64 (N,): 8 bytes of blake2b of each image as it is stored
<folder>/pixel_hashes.npy  uint64 (N,): the same of what image files decode to, up to MAX_DECODED
<folder>/proved.json       the digests of images and hashes, and what these are of; sizes and times
                           of the images' files

All are made again wherever one of them does not fit. Only somebody who writes a proof of his own
on this machine is believed, until `make verify` reads everything again.
"""

import contextlib
import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

from san.data.arrays import Pixels, load_array
from san.data.images import Images
from san.data.manifest import sha256_16
from san.errors import DataError, SanError
from san.runtime.files import atomic_write, read_json, write_text

HASHES_FILE = "hashes.npy"
PIXEL_HASHES_FILE = "pixel_hashes.npy"
PROOF_FILE = "proved.json"
# Image files of a split that are decoded to be hashed. Of ImageNet's it would take an hour.
MAX_DECODED = 200_000
CHUNK = 1024  # of them wait for a thread at a time
Hashes = NDArray[np.uint64]
log = logging.getLogger(__name__)


class ImageHashes(NamedTuple):
    """The hashes of the images of a split, each uint64 `(N,)`.

    stored: of the images as they are stored. pixels: of what their files decode to; None where
    there are more than MAX_DECODED files, or pixels are stored.
    """

    stored: Hashes
    pixels: Hashes | None


def prove_images(folder: Path, images: Images, digest: str, recheck: bool) -> ImageHashes | None:
    """Return the hashes of the images of a packed split; None where they are not `digest`'s.

    Images that were read before, on this machine, are recognised by their files, and their hashes
    by the proof that they were stored with, unless `recheck`. In a read-only copy they are read
    each time.
    """
    proof = {
        "pixels": digest,
        "files": _file_states(folder, images),
        "decoder": _decoder(images),
    }
    if not recheck:
        hashes = _read_proved(folder, proof, len(images))
        if hashes is not None:
            return hashes
    log.info("%s: reading %d images", folder, len(images))
    found, stored = digest_and_hashes(images)
    if found != digest:
        return None
    hashes = ImageHashes(stored, _hash_decoded(images) if _is_decoded(images) else None)
    with contextlib.suppress(OSError):  # a read-only copy
        _write_hashes(folder / HASHES_FILE, hashes.stored)
        if hashes.pixels is not None:
            _write_hashes(folder / PIXEL_HASHES_FILE, hashes.pixels)
        write_text(json.dumps(proof | _hashes_digests(hashes)), folder / PROOF_FILE)
    return hashes


def _is_decoded(images: Images) -> bool:
    return images.offsets is not None and len(images) <= MAX_DECODED


def _decoder(images: Images) -> str | None:
    """Return what decoded the images to hash them, as others may give other pixels; or None."""
    return f"Pillow {PIL.__version__}" if _is_decoded(images) else None


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


def _hash_decoded(images: Images) -> Hashes:
    """Return a hash of the pixels of each image file, decoded in threads on all cores.

    Files that were saved again, in another format without loss, are then equal. One that cannot be
    decoded has the hash of its bytes.
    """
    hashes = np.empty(len(images), np.uint64)

    def hash_file(i: int) -> int:
        """Return the hash of one image, with its shape: equal bytes may be other pixels."""
        try:
            pixels = images[i]
        except DataError:
            return hash_image(images.stored(i))
        shape = np.array(pixels.shape, "<i8")
        return hash_image(np.concatenate([shape.view(np.uint8), pixels.ravel()]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), CHUNK):
            rows = range(start, min(start + CHUNK, len(images)))
            hashes[rows.start : rows.stop] = list(pool.map(hash_file, rows))
    return hashes


def hash_image(image: Pixels) -> int:
    """Return the hash of an image as it is stored."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _read_proved(folder: Path, proof: dict[str, Any], count: int) -> ImageHashes | None:
    """Return the stored hashes, if they are those of the proof, and it is one of these images."""
    try:
        stored: object = read_json(folder / PROOF_FILE)
        hashes = ImageHashes(
            load_array(folder / HASHES_FILE),
            load_array(folder / PIXEL_HASHES_FILE) if proof["decoder"] else None,
        )
    except SanError:
        return None
    arrays = [array for array in hashes if array is not None]
    fits = all(array.dtype == np.uint64 and array.shape == (count,) for array in arrays)
    is_proved = stored == proof | _hashes_digests(hashes)
    return hashes if fits and is_proved else None


def _hashes_digests(hashes: ImageHashes) -> dict[str, str]:
    """Return the digests of hashes, by their names in the proof."""
    digests = {"hashes": sha256_16(np.ascontiguousarray(hashes.stored).data)}
    if hashes.pixels is not None:
        digests["pixel_hashes"] = sha256_16(np.ascontiguousarray(hashes.pixels).data)
    return digests


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
