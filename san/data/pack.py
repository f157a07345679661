"""Packed splits: memory-mapped images, labels, ids, and a manifest of their digests.

<folder>/images.npy     uint8 (N, H, W, 3); or, with offsets.npy, image files end to end: (bytes,)
<folder>/offsets.npy    int64 (N + 1,): where each file begins and ends
<folder>/labels.npy     int64 (N,)
<folder>/ids.json       N strings
<folder>/manifest.json  source, counts, class histogram, digests

What reading them adds to the folder is in `san.data.proof`.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from san.data.arrays import Pixels, write_header
from san.data.manifest import (
    MANIFEST_FILE,
    MAX_IDS_BYTES,
    VERSION,
    Contents,
    Manifest,
    fingerprint,
    ids_digest,
    labels_digest,
    read_manifest,
)
from san.errors import DataError, FileAccessError, SanError

# Id, label, and the image (H, W, 3) or the bytes of its file.
Example = tuple[str, int, Pixels | bytes]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        raise _unwritable(folder.parent, error) from None
    try:
        contents = _write_contents(staging, examples)
        manifest: Manifest = {
            "version": VERSION,
            "source": source,
            **contents,
            "digest": fingerprint(contents),
        }
        (staging / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _publish(staging, folder, manifest)
    except SanError:
        raise
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)
    return manifest


def _unwritable(folder: Path, error: OSError) -> FileAccessError:
    """Return an error that says what to do where the system refuses a folder."""
    if error.errno in _DISK_FULL:
        return FileAccessError(
            f"The disk is full ({error.strerror}): nothing was kept of {folder}. "
            "Make room, run again"
        )
    return FileAccessError(
        f"{folder} cannot be written ({error.strerror}). "
        "Choose another data_root (--root of the scripts)"
    )


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
    """Make an empty directory beside `folder` that no search for splits finds.

    Unlike those of `tempfile`, it is open to whom the user's umask says.
    """
    path = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    path.mkdir()
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a directory; raise OSError if another process holds it, or it is none."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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
        remove_split(folder)


def remove_split(folder: Path) -> None:
    """Remove a packed split at once, so that nobody finds half of it."""
    aside, lock = _create_staging_dir(folder)
    try:
        with contextlib.suppress(FileNotFoundError):  # another process removed it first
            folder.replace(aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(lock)


@dataclass
class _Rows:
    """What has been written of a split.

    shape: of every image; () where they are files. ids_bytes: of ids.json. digest: of the images.
    """

    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=lambda: [0])
    shape: tuple[int, ...] | None = None
    ids_bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


def _write_contents(folder: Path, examples: Iterable[Example]) -> Contents:
    """Write images, labels and ids; return counts and digests."""
    rows, shape = _write_images(folder, examples)
    if not shape:
        offsets = np.array(rows.offsets, np.int64)
        np.save(folder / "offsets.npy", offsets, allow_pickle=False)
        rows.digest.update(offsets.astype("<i8").data)
    labels = np.array(rows.labels, np.int64)
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    (folder / "ids.json").write_text(json.dumps(rows.ids), encoding="utf-8")
    return {
        "count": len(rows.ids),
        "shape": list(shape),
        "classes": np.bincount(labels).tolist() if labels.min() >= 0 else [],
        "pixels": rows.digest.hexdigest()[:16],
        "labels": labels_digest(labels),
        "ids": ids_digest(rows.ids),
    }


def _write_images(folder: Path, examples: Iterable[Example]) -> tuple[_Rows, tuple[int, ...]]:
    """Write `images.npy`; return ids, labels and offsets, and the shape that all images have."""
    rows = _Rows()
    with (folder / "images.npy").open("wb") as file:
        # The number of images is known only at the end, when the header is written again.
        write_header(file, (0,))
        for example in examples:
            _append_example(file, rows, example)
        if rows.shape is None:
            raise DataError(f"No images for {folder.parent}.")
        file.seek(0)
        if rows.shape:
            write_header(file, (len(rows.ids), *rows.shape))
        else:
            write_header(file, (rows.offsets[-1],))
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
    rows.digest.update(data.data)
    rows.offsets.append(rows.offsets[-1] + len(data))
    rows.labels.append(label)
    _append_id(rows, name)


def _append_id(rows: _Rows, name: str) -> None:
    """Note an id; raise DataError where there are more than will be read again."""
    rows.ids.append(name)
    rows.ids_bytes += len(json.dumps([name]))  # with what stands between two of them
    if rows.ids_bytes > MAX_IDS_BYTES:
        raise DataError(
            f"The names of the first {len(rows.ids)} images take {rows.ids_bytes} bytes; "
            f"at most {MAX_IDS_BYTES} are allowed. Shorten their paths, or pack fewer."
        )
