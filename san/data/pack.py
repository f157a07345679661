"""Packed splits: what training reads. Memory-mapped images, labels, ids and a manifest that proves them.

<folder>/images.npy    uint8 (N, H, W, 3), or with offsets.npy the images' files, one after the other: uint8 (bytes,)
<folder>/offsets.npy   int64 (N + 1,): where each file begins and ends
<folder>/labels.npy    int64 (N,)
<folder>/ids.json      N strings
<folder>/manifest.json source, counts, class histogram, digests
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
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

VERSION = 2
KEYS = {"version", "source", "count", "shape", "classes", "pixels", "labels", "ids", "digest"}
Example = tuple[
    str, int, NDArray[np.uint8] | bytes
]  # id, label, image (H, W, 3) or the bytes of its file


def sha256_16(data: bytes | memoryview) -> str:
    """Return 16 hex digits of a sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def fingerprint(manifest: dict[str, Any]) -> str:
    """Return 16 hex digits over the digests of images, labels and ids: equal for equal data, however it was made."""
    return sha256_16(
        json.dumps(
            [manifest["shape"], manifest["pixels"], manifest["labels"], manifest["ids"]]
        ).encode()
    )


def labels_digest(labels: NDArray[np.int64]) -> str:
    """Return the digest of labels in their order."""
    return sha256_16(np.ascontiguousarray(labels).astype("<i8").data)


def ids_digest(ids: Sequence[str]) -> str:
    """Return the digest of ids in their order, joined by newlines."""
    return sha256_16("\n".join(ids).encode())


def pixels_digest(folder: Path) -> str:
    """Return the digest of the images (and of where each begins, where they are files)."""
    images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    digest = hashlib.sha256()
    step = max(1, 2**24 // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        digest.update(np.ascontiguousarray(images[start : start + step]).data)
    if (folder / "offsets.npy").exists():
        digest.update(np.load(folder / "offsets.npy", allow_pickle=False).astype("<i8").data)
    return digest.hexdigest()[:16]


def write_split(
    folder: Path, examples: Iterable[Example], source: dict[str, Any]
) -> dict[str, Any]:
    """Write one split so that it is there whole or not at all; return its manifest. `source` says how it was made.

    The examples are read once and never held. Raises OSError where the folder cannot be written, ValueError where the
    examples are none or unlike each other, and whatever reading them raises; nothing is left then.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished, lock = create_staging_dir(folder)
    except OSError as error:
        text = f"{folder.parent} cannot be written ({error.strerror}). Choose another data_root (--root of the scripts)"
        raise OSError(error.errno, text) from None
    try:
        manifest = {"version": VERSION, "source": source, **write_arrays(unfinished, examples)}
        manifest["digest"] = fingerprint(manifest)
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1))
        unfinished.chmod(0o755)
        publish(unfinished, folder, manifest)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text = f"The disk is full ({error.strerror}): nothing was kept of {folder}. Make room, run again"
            raise OSError(error.errno, text) from None
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(lock)
    return manifest


def create_staging_dir(folder: Path) -> tuple[Path, int]:
    """Make an empty folder beside `folder`, locked as long as this process lives; take away those of killed ones."""
    for path in folder.parent.glob(f".{folder.name}-*"):
        with contextlib.suppress(OSError), locked(path):
            shutil.rmtree(path, ignore_errors=True)
    while True:
        path = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        with contextlib.suppress(
            FileNotFoundError
        ):  # another process took it for a dead one's before it was locked
            lock = os.open(path, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder; raise OSError where another process does."""
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def write_arrays(folder: Path, examples: Iterable[Example]) -> dict[str, Any]:
    """Write images, labels and ids; return counts and digests."""
    ids: list[str] = []
    classes: list[int] = []
    offsets = [0]
    shape: tuple[int, ...] | None = None
    with (folder / "images.npy").open("wb") as file:
        begin_array(file, (0,))
        for name, label, image in examples:
            rows = (
                np.frombuffer(image, np.uint8)
                if isinstance(image, bytes)
                else np.ascontiguousarray(image)
            )
            this = () if isinstance(image, bytes) else rows.shape
            shape = this if shape is None else shape
            if this != shape:
                raise ValueError(
                    f"{name} is {this or 'a file'}, the images before it are {shape or 'files'}."
                )
            file.write(rows.data)
            offsets.append(offsets[-1] + len(rows))
            ids.append(name)
            classes.append(label)
        if shape is None:
            raise ValueError(f"No images for {folder.parent}.")
        file.seek(0)
        begin_array(file, (len(ids), *shape) if shape else (offsets[-1],))
    if not shape:
        np.save(folder / "offsets.npy", np.array(offsets, np.int64), allow_pickle=False)
    labels = np.array(classes, np.int64)
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    (folder / "ids.json").write_text(json.dumps(ids))
    return {
        "count": len(ids),
        "shape": list(shape),
        "classes": np.bincount(labels).tolist() if labels.min() >= 0 else [],
        "pixels": pixels_digest(folder),
        "labels": labels_digest(labels),
        "ids": ids_digest(ids),
    }


HEADER = 128  # bytes of the .npy header, the data's beginning: the true shape is known at the end


def begin_array(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the header of a uint8 .npy file in its fixed place."""
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        text, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    header = text.getvalue()
    prefix, said = header[:8], header[10:].rstrip(b" \n")
    file.write(prefix + (HEADER - 10).to_bytes(2, "little") + said.ljust(HEADER - 11) + b"\n")


def publish(new: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Rename `new` to `folder`; what was there goes, unless another process has just put the same there."""
    while True:
        try:
            new.replace(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if read_manifest(folder) == json.loads(json.dumps(manifest)):
            return
        with contextlib.suppress(FileNotFoundError):  # another process took it away first
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)) / "old"
            folder.replace(old)
            shutil.rmtree(old.parent, ignore_errors=True)


def hardlink_images(folder: Path, other: Path) -> bool:
    """Make one file of the images of two splits where they are equal, that of `folder`; return whether they are.

    Another task of the same images then costs no space. Where the file system has no hard links both are kept.
    """
    mine, theirs = read_manifest(folder), read_manifest(other)
    if (
        mine is None
        or theirs is None
        or any(mine[key] != theirs[key] for key in ("pixels", "shape", "count"))
    ):
        return False
    spare = other / f".images-{os.getpid()}.npy"
    with contextlib.suppress(OSError):
        os.link(folder / "images.npy", spare)
        spare.replace(other / "images.npy")
    return True


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a packed split, or None where there is none of this version."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    whole = (
        isinstance(manifest, dict)
        and manifest.keys() >= KEYS
        and isinstance(manifest["source"], dict)
    )
    return manifest if whole and manifest["version"] == VERSION else None
