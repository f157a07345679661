"""A packed split as training sees it: opened, checked against its manifest, joined with others."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from san.data import pack
from san.data.pack import Labels, Manifest, Pixels
from san.errors import DataError
from san.runtime.files import write_text

_PREPARE_AGAIN = "Delete it and prepare the task again."


@dataclass(frozen=True)
class Images:
    """The memory-mapped images of one packed split; reading copies, so the file is never changed.

    data: uint8 `(N, H, W, 3)`; or, with offsets `(N + 1,)`, the bytes of N image files end to end.
    """

    data: Pixels
    offsets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        if self.offsets is None:
            return len(self.data)
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Pixels:
        if self.offsets is None:
            return np.array(self.data[i])  # a copy
        start = self.offsets[i]
        end = self.offsets[i + 1]
        return decode_image(self.data[start:end].tobytes())


def decode_image(data: bytes) -> Pixels:
    """Decode an image file to uint8 `(H, W, 3)`; a single channel is repeated.

    Raises OSError if it cannot be decoded, or has more than 8 bits a channel.
    """
    with Image.open(io.BytesIO(data)) as image:
        # PIL would clip deeper pixels to 8 bits in silence.
        if image.mode.startswith("I") or image.mode == "F":
            raise OSError(f"its pixels are of mode {image.mode}; 8 bits a channel are allowed")
        return np.array(image.convert("RGB"))


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
        """Return image i as uint8 `(H, W, 3)`, a copy."""
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        start = int(self._starts[part])
        return self.parts[part][i - start]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The number of the first image of each part, and of all images."""
        return np.cumsum([0, *map(len, self.parts)])


def read_split(folder: Path, expected: int, classes: int, full: bool = False) -> Split:
    """Open a packed split; see `open_split`."""
    return open_split(folder, pack.read_manifest(folder), expected, classes, full)


def open_split(
    folder: Path, manifest: Manifest | None, expected: int, classes: int, full: bool = False
) -> Split:
    """Map a packed split with its manifest; images are copied only when they are taken.

    expected: the number of images that the task should have. classes: labels lie in [0, classes).
    full: compare all pixels with their digest, not only where the files look changed.
    A problem that a user may overrule (another number of images) goes into `problems`. Raises
    DataError, which names the folder, where the split cannot be trained on at all.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not there: its preparation did not end. Run the same preparation again."
        )
    if manifest is None:
        raise DataError(
            f"{folder} holds no packed split of version {pack.VERSION}. {_PREPARE_AGAIN}"
        )
    # What is cheap to check comes before the pixels, which take a while at the first time.
    images, labels, ids = _load_arrays(folder, manifest)
    _check_counts(folder, manifest, images, labels, ids)
    _check_range(folder, labels, classes)
    verified = _facts_match(manifest, labels, ids) and _pixels_match(folder, manifest, full)
    if not verified:
        raise DataError(f"{folder} does not match its manifest's digests. {_PREPARE_AGAIN}")
    count = len(ids)
    problems: tuple[str, ...] = ()
    if count != expected:
        problems = (f"{folder} has {count} images; {expected} are expected",)
    return Split(
        parts=(images,),
        labels=labels,
        ids=ids,
        fingerprint=manifest["digest"],
        sources=(manifest["source"],),
        problems=problems,
    )


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
        data: Pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels: Labels = np.load(folder / "labels.npy", allow_pickle=False)
        if not manifest["shape"]:
            offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        ids = json.loads((folder / "ids.json").read_text())
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder} cannot be read ({error}). {_PREPARE_AGAIN}") from error
    shape = data.shape[:1]  # of image files end to end: bytes, whatever the images' sizes
    if offsets is None:
        shape = (manifest["count"], *manifest["shape"])
    is_images = data.dtype == np.uint8 and data.shape[1:] == shape[1:]
    is_labels = labels.dtype == np.int64 and labels.ndim == 1
    if not is_images or not is_labels:
        found = f"images {data.dtype} {data.shape}, labels {labels.dtype} {labels.shape}"
        raise DataError(
            f"{folder} holds {found}; its manifest says uint8 {shape} and int64. {_PREPARE_AGAIN}"
        )
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise DataError(f"{folder / 'ids.json'} is not a list of names. {_PREPARE_AGAIN}")
    return Images(data, offsets), labels, ids


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


def _facts_match(manifest: Manifest, labels: Labels, ids: Sequence[str]) -> bool:
    """Return whether labels, ids and the manifest itself match the manifest's digests."""
    return (
        pack.labels_digest(labels) == manifest["labels"]
        and pack.ids_digest(ids) == manifest["ids"]
        and np.bincount(labels).tolist() == manifest["classes"]
        and pack.fingerprint(manifest) == manifest["digest"]
    )


def _pixels_match(folder: Path, manifest: Manifest, full: bool) -> bool:
    """Return whether the images match their digest.

    Images that were compared before are recognised by size and time of their files, unless `full`.
    """
    files = [folder / "images.npy"]
    if (folder / "offsets.npy").exists():
        files.append(folder / "offsets.npy")
    seen = {
        "pixels": manifest["pixels"],
        "files": [_size_and_mtime(file) for file in files],
    }
    stamp = folder / "proved.json"
    if not full and _read_stamp(stamp) == seen:
        return True
    if pack.pixels_digest(folder) != manifest["pixels"]:
        return False
    with contextlib.suppress(OSError):  # a read-only copy is compared each time
        write_text(json.dumps(seen), stamp)
    return True


def _size_and_mtime(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _read_stamp(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text())
    except (OSError, ValueError):
        return None
