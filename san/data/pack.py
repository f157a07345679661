"""Packed splits: what training reads. Memory-mapped images, labels, ids and a manifest that proves them.

<folder>/images.npy    uint8 (N, H, W, 3)
<folder>/labels.npy    int64 (N,)
<folder>/ids.json      N strings
<folder>/manifest.json source, counts, class histogram, digests
"""

import contextlib
import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1


@dataclass(frozen=True)
class Split:
    """A part of a packed task. images: uint8 `(N, H, W, 3)`, read-only; labels: int64 `(N,)`; ids: N strings."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: Sequence[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)


def digest(images: NDArray[np.uint8], labels: NDArray[np.int64], ids: Sequence[str]) -> str:
    """Return 16 hex digits of a sha256 over shape, pixels, labels and ids."""
    sha = hashlib.sha256(repr(images.shape).encode())
    sha.update(np.ascontiguousarray(images).data)
    sha.update(np.ascontiguousarray(labels).data)
    sha.update("\n".join(ids).encode())
    return sha.hexdigest()[:16]


def write(
    folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], ids: Sequence[str], source: dict[str, Any]
) -> None:
    """Write one split so that it is there whole or not at all; `source` says how it was made.

    Raises OSError where the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        np.save(unfinished / "images.npy", images, allow_pickle=False)
        np.save(unfinished / "labels.npy", labels, allow_pickle=False)
        (unfinished / "ids.json").write_text(json.dumps(list(ids)))
        manifest = {
            "version": VERSION,
            "source": source,
            "count": len(labels),
            "shape": list(images.shape[1:]),
            "classes": np.bincount(labels).tolist(),
            "digest": digest(images, labels, ids),
        }
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1))
        unfinished.chmod(0o755)
        put(unfinished, folder, manifest["digest"])
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def put(new: Path, folder: Path, digest: str) -> None:
    """Rename `new` to `folder`; what was there goes, unless another process has just put the same there."""
    while True:
        try:
            new.replace(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if (manifest_of(folder) or {}).get("digest") == digest:
            return
        with contextlib.suppress(FileNotFoundError):  # another process took it away first
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)) / "old"
            folder.replace(old)
            shutil.rmtree(old.parent, ignore_errors=True)


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a packed split, or None where there is none of this version."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("version") == VERSION else None


def read(folder: Path, expected: int, classes: int) -> Split:
    """Map a packed split; nothing is copied until a batch is taken.

    expected: the number of images the task's row states; classes: labels must lie in [0, classes).
    Raises ValueError that names the folder where the data is not what its manifest or the row says.
    """
    manifest = manifest_of(folder)
    if manifest is None:
        raise ValueError(f"{folder} holds no packed split of version {VERSION}. Delete it and prepare the task again.")
    try:
        images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels: NDArray[np.int64] = np.load(folder / "labels.npy", allow_pickle=False)
        ids = json.loads((folder / "ids.json").read_text())
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{folder} cannot be read ({error}). Delete it and prepare the task again.") from error
    if not len(images) == len(labels) == len(ids) == expected:
        counts = f"{len(images)} images, {len(labels)} labels and {len(ids)} ids"
        raise ValueError(f"{folder} holds {counts}; {expected} of each are expected. Delete it and prepare it again.")
    if labels.min() < 0 or labels.max() >= classes:
        span = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"{folder} has labels {span}; 0..{classes - 1} are allowed. Delete it and prepare it again.")
    if digest(images, labels, ids) != manifest.get("digest"):
        raise ValueError(f"{folder} does not match its manifest's digest. Delete it and prepare the task again.")
    return Split(images, labels, ids, manifest["digest"])


def join(splits: Sequence[Split]) -> Split:
    """Join splits in order, as `train+val`; one split is returned as it is."""
    if len(splits) == 1:
        return splits[0]
    return Split(
        np.concatenate([s.images for s in splits]),
        np.concatenate([s.labels for s in splits]),
        [i for s in splits for i in s.ids],
        "+".join(s.fingerprint for s in splits),
    )
