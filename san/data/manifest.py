"""The manifest of a packed split: how it was made, and the digests of what it holds."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
import numpy as np
from msgspec import Meta

from san.data.arrays import Labels
from san.errors import DataError, SanError
from san.runtime.files import read_json

VERSION = 2
MANIFEST_FILE = "manifest.json"
MAX_IDS_BYTES = 2**30  # of ids.json; ImageNet-21k, 14 million images, takes half of it
_Count = Annotated[int, Meta(ge=0, le=2**40)]
_Side = Annotated[int, Meta(ge=1, le=2**20)]


class Contents(TypedDict):
    """What a packed split holds.

    shape: `[H, W, 3]` of every image, or empty where image files are stored. classes: the number
    of images of each class. pixels, labels, ids: their digests.
    """

    count: Annotated[int, Meta(ge=1, le=2**40)]
    shape: list[_Side]
    classes: list[_Count]
    pixels: str
    labels: str
    ids: str


class Manifest(Contents):
    """The content of `manifest.json`. source: how the split was made; digest: its fingerprint."""

    version: int
    source: dict[str, Any]
    digest: str


class _Source(TypedDict):
    """What is read of a manifest's `source`, which says more."""

    made_by: str
    builder: NotRequired[str | None]
    layout: NotRequired[str | None]
    names: NotRequired[list[str] | None]
    ids: NotRequired[str | None]
    as_shown: NotRequired[bool]


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a packed split, or None if there is none of this version."""
    try:
        return load_manifest(folder)
    except DataError:
        return None


def load_manifest(folder: Path) -> Manifest:
    """Return the manifest of a packed split; raise DataError, which says why, if there is none."""
    try:
        manifest: Manifest = read_json(folder / MANIFEST_FILE, Manifest)
        msgspec.convert(manifest["source"], _Source)
    except SanError as error:
        raise no_permission(error, folder) or DataError(_explain(folder, str(error))) from error
    except msgspec.ValidationError as error:
        raise DataError(_explain(folder, f"the source of {MANIFEST_FILE}: {error}")) from error
    if manifest["version"] != VERSION:
        raise DataError(_explain(folder, f"{MANIFEST_FILE} is of version {manifest['version']}"))
    shape = manifest["shape"]
    if shape and (len(shape) != 3 or shape[2] != 3):
        raise DataError(_explain(folder, f"{MANIFEST_FILE} says that images are {shape}"))
    return manifest


def no_permission(error: BaseException, folder: Path) -> DataError | None:
    """Return what to say where `error` is that a file of a packed split may not be read, or None.

    It may be as good as new, so nobody is told to delete it.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, PermissionError):
        cause = cause.__cause__
    if cause is None:
        return None
    path = Path(cause.filename or folder)
    return DataError(
        f"{folder} may not be read by you ({path.name}: {cause.strerror}). "
        f"Ask {_owner(path, folder)} for the permission to read it, or choose another data_root "
        "(--root of the scripts)."
    )


def _owner(*paths: Path) -> str:
    """Return who may let others read the first of some paths whose owner is known."""
    for path in paths:
        with contextlib.suppress(OSError, KeyError):  # a folder without permission, an old user
            return f"its owner, {path.owner()},"
    return "its owner"


def _explain(folder: Path, reason: str) -> str:
    return (
        f"{folder} holds no packed split of version {VERSION} ({reason.rstrip('.')}). "
        "Move it away and prepare the task again."
    )


def fingerprint(contents: Contents) -> str:
    """Return 16 hex digits that are equal for equal images, labels and ids, whoever packed them."""
    facts = [
        contents["shape"],
        contents["pixels"],
        contents["labels"],
        contents["ids"],
    ]
    return sha256_16(json.dumps(facts).encode())


def is_as_shown(manifest: Manifest) -> bool:
    """Return whether image files are decoded as viewers show them; see `images.decode_image`."""
    return bool(manifest["source"].get("as_shown", False))


def labels_digest(labels: Labels) -> str:
    """Return the digest of labels in their order."""
    return sha256_16(np.ascontiguousarray(labels).astype("<i8").data)


def ids_digest(ids: Sequence[str]) -> str:
    """Return the digest of ids in their order, joined by newlines."""
    return sha256_16("\n".join(ids).encode())


def sha256_16(data: bytes | memoryview) -> str:
    """Return 16 hex digits of a sha256."""
    return hashlib.sha256(data).hexdigest()[:16]
