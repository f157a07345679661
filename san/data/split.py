"""A packed split as training sees it: opened, checked against its manifest, joined with others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san.data.arrays import Labels, Pixels, load_array
from san.data.images import Images
from san.data.manifest import (
    MAX_IDS_BYTES,
    Manifest,
    fingerprint,
    ids_digest,
    is_as_shown,
    labels_digest,
    load_manifest,
    no_permission,
    read_manifest,
)
from san.data.proof import Hashes, prove_images
from san.errors import DataError, SanError
from san.runtime.files import read_json

_PREPARE_AGAIN = "Delete it and prepare the task again."


@dataclass(frozen=True)
class Split:
    """A part of a task that trains or is evaluated: one packed split, or several joined.

    labels: int64 `(N,)`. ids: N strings. sources: of each part, how it was made. problems: why it
    is not the benchmark's data; a user may train on it nevertheless.
    """

    parts: tuple[Images, ...]
    labels: Labels
    ids: Sequence[str]
    fingerprint: str
    sources: tuple[Mapping[str, Any], ...]
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def source(self) -> str:
        """Where the images come from, in words."""
        return join_distinct(map(_describe_source, self.sources))

    @property
    def source_kind(self) -> str:
        """Which program or layout they come from, without versions."""
        return join_distinct(source["made_by"] for source in self.sources)

    def image(self, i: int) -> Pixels:
        """Return image i as uint8 `(H, W, 3)`, a copy.

        Raises DataError, which names it, where its file cannot be decoded.
        """
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        start = int(self._starts[part])
        try:
            return self.parts[part][i - start]
        except DataError as error:
            raise DataError(
                f"Image {self.ids[i]} ({self.source}) cannot be decoded ({error}). "
                "Mend or remove it in its source, and prepare the task again."
            ) from error

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The number of the first image of each part, and of all images."""
        return np.cumsum([0, *map(len, self.parts)])


@dataclass(frozen=True)
class StoredSplit(Split):
    """One packed split. hashes: uint64 `(N,)`, equal where images are stored alike.

    pixel_hashes: equal where image files decode to the same; None where they were not decoded.
    """

    hashes: Hashes = field(kw_only=True)
    pixel_hashes: Hashes | None = field(kw_only=True)

    @property
    def is_compared_by_bytes(self) -> bool:
        """Whether its images are files of which only the bytes are hashed: there are too many."""
        return self.parts[0].offsets is not None and self.pixel_hashes is None


def read_split(folder: Path, expected: int, classes: int, recheck: bool = False) -> StoredSplit:
    """Open a packed split; see `open_split`."""
    return open_split(folder, read_manifest(folder), expected, classes, recheck)


def open_split(
    folder: Path, manifest: Manifest | None, expected: int, classes: int, recheck: bool = False
) -> StoredSplit:
    """Map a packed split with its manifest; images are copied only when they are taken.

    expected: the number of images that the task should have. classes: labels lie in [0, classes).
    recheck: compare all pixels with their digest, not only where the files look changed.
    A problem that a user may overrule (another number of images) goes into `problems`. Raises
    DataError, which names the folder, where the split cannot be trained on at all.
    """
    try:
        is_there = folder.is_dir()
    except OSError as error:
        unknown = DataError(f"{folder} cannot be looked at ({error.strerror}).")
        raise no_permission(error, folder) or unknown from error
    if not is_there:
        raise DataError(
            f"{folder} is not there: its preparation did not end. Run the same preparation again."
        )
    if manifest is None:
        manifest = load_manifest(folder)  # raises an error that says why there is none
    # What is cheap to check comes before the pixels, which take a while at the first time.
    images, labels, ids = _load_arrays(folder, manifest)
    _check_counts(folder, manifest, images, labels, ids)
    _check_range(folder, labels, classes)
    hashes = None
    if _facts_match(manifest, labels, ids):
        hashes = prove_images(folder, images, manifest["pixels"], recheck)
    if hashes is None:
        raise DataError(f"{folder} does not match its manifest's digests. {_PREPARE_AGAIN}")
    count = len(ids)
    problems: tuple[str, ...] = ()
    if count != expected:
        problems = (f"{folder} has {count} images; {expected} are expected",)
    return StoredSplit(
        parts=(images,),
        labels=labels,
        ids=ids,
        fingerprint=_fingerprint(manifest),
        sources=(manifest["source"],),
        problems=problems,
        hashes=hashes.stored,
        pixel_hashes=hashes.pixels,
    )


def _fingerprint(manifest: Manifest) -> str:
    """Return what is equal for equal images as a run sees them, labels and ids."""
    return manifest["digest"] + ("-as-shown" if is_as_shown(manifest) else "")


def join_splits(splits: Sequence[Split]) -> Split:
    """Join splits in order, as `train+val`; a single split is returned as it is."""
    if len(splits) == 1:
        return splits[0]
    return Split(
        parts=tuple(part for split in splits for part in split.parts),
        labels=np.concatenate([split.labels for split in splits]),
        ids=[name for split in splits for name in split.ids],
        fingerprint="+".join(split.fingerprint for split in splits),
        sources=tuple(source for split in splits for source in split.sources),
        problems=tuple(problem for split in splits for problem in split.problems),
    )


def _describe_source(source: Mapping[str, Any]) -> str:
    words = [source[key] for key in ("made_by", "builder") if source.get(key)]
    text = " ".join(words)
    if source.get("layout") == "official":
        text = f"{text}, official split"
    return text


def join_distinct(texts: Iterable[str]) -> str:
    """Join texts, each once, in their order."""
    return "; ".join(dict.fromkeys(texts))


def _load_arrays(folder: Path, manifest: Manifest) -> tuple[Images, Labels, Sequence[str]]:
    """Return images, labels and ids; raise DataError if a file is damaged or of another type."""
    offsets = None
    try:
        data: Pixels = load_array(folder / "images.npy", mapped=True)
        labels: Labels = load_array(folder / "labels.npy")
        if not manifest["shape"]:
            offsets = load_array(folder / "offsets.npy")
        ids: Any = read_json(folder / "ids.json", limit=MAX_IDS_BYTES)
    except SanError as error:
        damaged = DataError(f"{folder} cannot be read ({error}). {_PREPARE_AGAIN}")
        raise no_permission(error, folder) or damaged from error
    shape: tuple[object, ...] = ("bytes",)  # of image files end to end
    is_images = data.ndim == 1
    if offsets is None:
        shape = (manifest["count"], *manifest["shape"])
        is_images = data.ndim == 4 and data.shape[1:] == shape[1:]
    is_labels = labels.dtype == np.int64 and labels.ndim == 1
    if data.dtype != np.uint8 or not is_images or not is_labels:
        found = f"images {data.dtype} {data.shape}, labels {labels.dtype} {labels.shape}"
        raise DataError(
            f"{folder} holds {found}; its manifest says uint8 {shape} and int64. {_PREPARE_AGAIN}"
        )
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise DataError(f"{folder / 'ids.json'} is not a list of names. {_PREPARE_AGAIN}")
    images = Images(data, offsets, is_as_shown(manifest))
    _check_offsets(folder, images)
    return images, labels, ids


def _check_counts(
    folder: Path,
    manifest: Manifest,
    images: Images,
    labels: Labels,
    ids: Sequence[str],
) -> None:
    """Raise DataError unless there are as many images, labels and ids as the manifest says."""
    expected = manifest["count"]
    if len(images) == len(labels) == len(ids) == expected:
        return
    found = f"{len(images)} images, {len(labels)} labels and {len(ids)} ids"
    raise DataError(
        f"{folder} holds {found}; its manifest says {expected} of each. {_PREPARE_AGAIN}"
    )


def _check_range(folder: Path, labels: Labels, classes: int) -> None:
    """Raise DataError unless all labels lie in [0, classes)."""
    lowest = labels.min()
    highest = labels.max()
    if lowest >= 0 and highest < classes:
        return
    raise DataError(
        f"{folder} has labels {lowest}..{highest}; 0..{classes - 1} are allowed. {_PREPARE_AGAIN}"
    )


def _check_offsets(folder: Path, images: Images) -> None:
    """Raise DataError unless the offsets of image files ascend, from end to end of the bytes."""
    offsets = images.offsets
    if offsets is None:
        return
    is_list = offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) > 1
    if is_list and offsets[0] == 0 and offsets[-1] == len(images.data):
        ascend = offsets[:-1] <= offsets[1:]
        if ascend.all():
            return
    raise DataError(
        f"{folder / 'offsets.npy'} does not say where each of its images is. {_PREPARE_AGAIN}"
    )


def _facts_match(manifest: Manifest, labels: Labels, ids: Sequence[str]) -> bool:
    """Return whether labels, ids and the manifest itself match the manifest's digests."""
    return (
        labels_digest(labels) == manifest["labels"]
        and ids_digest(ids) == manifest["ids"]
        and np.bincount(labels).tolist() == manifest["classes"]
        and fingerprint(manifest) == manifest["digest"]
    )
