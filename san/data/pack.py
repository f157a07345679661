"""Packed splits: memory-mapped images, labels, ids, and a manifest of their digests.

<folder>/images.npy     uint8 (N, H, W, 3); or, with offsets.npy, image files end to end: (bytes,)
<folder>/offsets.npy    int64 (N + 1,): where each file begins and ends
<folder>/labels.npy     int64 (N,)
<folder>/ids.json       N strings
<folder>/manifest.json  source, counts, class histogram, digests
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np
from numpy.typing import NDArray

from san.errors import DataError, FileAccessError

VERSION = 2
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
# Id, label, and the image (H, W, 3) or the bytes of its file.
Example = tuple[str, int, Pixels | bytes]

_NPY_HEADER_BYTES = 128  # a fixed size, as the true shape is known only at the end
_READ_BYTES = 2**24  # of images in memory at a time
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Contents(TypedDict):
    """What a packed split holds.

    shape: `[H, W, 3]` of every image, or empty where image files are stored. classes: the number
    of images of each class. pixels, labels, ids: their digests.
    """

    count: int
    shape: list[int]
    classes: list[int]
    pixels: str
    labels: str
    ids: str


class Manifest(Contents):
    """The content of `manifest.json`. source: how the split was made; digest: its fingerprint."""

    version: int
    source: dict[str, Any]
    digest: str


def _sha256_16(data: bytes | memoryview) -> str:
    """Return 16 hex digits of a sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def fingerprint(contents: Contents) -> str:
    """Return 16 hex digits that are equal for equal images, labels and ids, whoever packed them."""
    facts = [
        contents["shape"],
        contents["pixels"],
        contents["labels"],
        contents["ids"],
    ]
    return _sha256_16(json.dumps(facts).encode())


def labels_digest(labels: Labels) -> str:
    """Return the digest of labels in their order."""
    return _sha256_16(np.ascontiguousarray(labels).astype("<i8").data)


def ids_digest(ids: Sequence[str]) -> str:
    """Return the digest of ids in their order, joined by newlines."""
    return _sha256_16("\n".join(ids).encode())


def pixels_digest(folder: Path) -> str:
    """Return the digest of the images, and of the offsets where there are any."""
    images: Pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    digest = hashlib.sha256()
    image_bytes = max(1, images[:1].nbytes)
    step = max(1, _READ_BYTES // image_bytes)
    for start in range(0, len(images), step):
        chunk = np.ascontiguousarray(images[start : start + step])
        digest.update(chunk.data)
    # Where each file begins matters as much as its bytes.
    if (folder / "offsets.npy").exists():
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        digest.update(offsets.astype("<i8").data)
    return digest.hexdigest()[:16]


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a packed split, or None if there is none of this version."""
    try:
        manifest: Manifest = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if not isinstance(manifest, dict) or not manifest.keys() >= Manifest.__required_keys__:
        return None
    current = isinstance(manifest["source"], dict) and manifest["version"] == VERSION
    return manifest if current else None


def write_split(folder: Path, examples: Iterable[Example], source: dict[str, Any]) -> Manifest:
    """Write one split, complete or not at all; return its manifest.

    source: how the split is made, for the manifest. The examples are read once, one at a time.
    Raises FileAccessError if the folder cannot be written or the disk is full, DataError if there
    are no examples or they differ in shape, and whatever reading them raises; nothing is left then.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _create_staging_dir(folder)
    except OSError as error:
        raise FileAccessError(
            f"{folder.parent} cannot be written ({error.strerror}). "
            "Choose another data_root (--root of the scripts)"
        ) from None
    try:
        contents = _write_contents(staging, examples)
        manifest: Manifest = {
            "version": VERSION,
            "source": source,
            **contents,
            "digest": fingerprint(contents),
        }
        (staging / "manifest.json").write_text(json.dumps(manifest, indent=1))
        staging.chmod(0o755)  # mkdtemp makes private directories
        _publish(staging, folder, manifest)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise FileAccessError(
            f"The disk is full ({error.strerror}): nothing was kept of {folder}. "
            "Make room, run again"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)
    return manifest


def hardlink_images(folder: Path, other: Path) -> bool:
    """Replace the images of `other` by a hard link to those of `folder` if both are equal.

    Returns whether they are equal. Another task of the same images then takes no space; both
    files are kept where the file system has no hard links.
    """
    manifest = read_manifest(folder)
    other_manifest = read_manifest(other)
    if manifest is None or other_manifest is None:
        return False
    if _image_facts(manifest) != _image_facts(other_manifest):
        return False
    link = other / f".images-{os.getpid()}.npy"
    # A link cannot replace a file, so it is made beside it and renamed.
    with contextlib.suppress(OSError):
        os.link(folder / "images.npy", link)
        link.replace(other / "images.npy")
    return True


def _image_facts(contents: Contents) -> tuple[str, list[int], int]:
    return contents["pixels"], contents["shape"], contents["count"]


def _create_staging_dir(folder: Path) -> tuple[Path, int]:
    """Make an empty directory beside `folder`, locked while this process lives; return its lock.

    Those of processes that died are removed.
    """
    for path in folder.parent.glob(f".{folder.name}-*"):
        with contextlib.suppress(OSError), _locked(path):
            shutil.rmtree(path, ignore_errors=True)
    while True:
        path = _make_hidden_dir(folder)
        # Before it is locked, another process may remove it as one of a dead process.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def _make_hidden_dir(folder: Path) -> Path:
    """Make an empty directory beside `folder` that no search for splits finds."""
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a directory; raise OSError if another process holds it."""
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _publish(staging: Path, folder: Path, manifest: Manifest) -> None:
    """Rename `staging` to `folder`, in place of what was there.

    If another process has just put the same split there, that one stays.
    """
    while True:
        try:
            staging.replace(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        # Through JSON, which has no tuples.
        if read_manifest(folder) == json.loads(json.dumps(manifest)):
            return
        with contextlib.suppress(FileNotFoundError):  # another process removed it first
            aside = _make_hidden_dir(folder)
            folder.replace(aside / "old")
            shutil.rmtree(aside, ignore_errors=True)


@dataclass
class _Rows:
    """What has been written of a split. shape: of every image; () where they are files."""

    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=lambda: [0])
    shape: tuple[int, ...] | None = None


def _write_contents(folder: Path, examples: Iterable[Example]) -> Contents:
    """Write images, labels and ids; return counts and digests."""
    rows, shape = _write_images(folder, examples)
    if not shape:
        offsets = np.array(rows.offsets, np.int64)
        np.save(folder / "offsets.npy", offsets, allow_pickle=False)
    labels = np.array(rows.labels, np.int64)
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    (folder / "ids.json").write_text(json.dumps(rows.ids))
    return {
        "count": len(rows.ids),
        "shape": list(shape),
        "classes": np.bincount(labels).tolist() if labels.min() >= 0 else [],
        "pixels": pixels_digest(folder),
        "labels": labels_digest(labels),
        "ids": ids_digest(rows.ids),
    }


def _write_images(folder: Path, examples: Iterable[Example]) -> tuple[_Rows, tuple[int, ...]]:
    """Write `images.npy`; return ids, labels and offsets, and the shape that all images have."""
    rows = _Rows()
    with (folder / "images.npy").open("wb") as file:
        # The number of images is known only at the end, when the header is written again.
        _write_npy_header(file, (0,))
        for example in examples:
            _append_example(file, rows, example)
        if rows.shape is None:
            raise DataError(f"No images for {folder.parent}.")
        file.seek(0)
        if rows.shape:
            _write_npy_header(file, (len(rows.ids), *rows.shape))
        else:
            _write_npy_header(file, (rows.offsets[-1],))
    return rows, rows.shape


def _append_example(file: BinaryIO, rows: _Rows, example: Example) -> None:
    """Write the image of an example, and note the rest in `rows`."""
    name, label, image = example
    if isinstance(image, bytes):
        data = np.frombuffer(image, np.uint8)
        shape: tuple[int, ...] = ()
    else:
        data = np.ascontiguousarray(image)
        shape = data.shape
    if rows.shape is None:
        rows.shape = shape
    if shape != rows.shape:
        found = shape or "a file"
        before = rows.shape or "files"
        raise DataError(f"{name} is {found}, the images before it are {before}.")
    file.write(data.data)
    rows.offsets.append(rows.offsets[-1] + len(data))
    rows.ids.append(name)
    rows.labels.append(label)


def _write_npy_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a uint8 .npy file, padded to `_NPY_HEADER_BYTES`."""
    buffer = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, facts)
    header = buffer.getvalue()
    magic = header[:8]
    description = header[10:].rstrip(b" \n")
    # Bytes 8 and 9 are the length of the description, which ends with a newline.
    length = _NPY_HEADER_BYTES - 10
    file.write(magic + length.to_bytes(2, "little"))
    file.write(description.ljust(length - 1) + b"\n")
