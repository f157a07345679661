"""A packed split as training sees it: opened, checked against its manifest, joined with others."""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from san.data import pack


@dataclass(frozen=True)
class Images:
    """The images of one packed split, mapped: a read copies, so nothing that happens to it reaches the file.

    data: uint8 `(N, H, W, 3)`, or with offsets `(N + 1,)` the bytes of N image files.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.data) if self.offsets is None else len(self.offsets) - 1

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        if self.offsets is None:
            return np.array(self.data[i])
        return decode_image(self.data[self.offsets[i] : self.offsets[i + 1]].tobytes())


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file to uint8 `(H, W, 3)`; one channel is repeated. Raises OSError where it cannot be."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I") or image.mode == "F":
            raise OSError(f"its pixels are of mode {image.mode}; 8 bits a channel are allowed")
        return np.array(image.convert("RGB"))


@dataclass(frozen=True)
class Split:
    """A part of a task. labels: int64 `(N,)`; ids: N strings; sources: how each part was made; problems: see `read`."""

    parts: tuple[Images, ...]
    labels: NDArray[np.int64]
    ids: Sequence[str]
    fingerprint: str
    sources: tuple[dict[str, Any], ...]
    problems: tuple[str, ...] = ()
    starts: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.cumsum([0, *map(len, self.parts)]))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def source(self) -> str:
        """Where the images come from, in words."""
        words = (" ".join(s[k] for k in ("made_by", "builder") if s.get(k)) for s in self.sources)
        official = (
            ", official split" if s.get("layout") == "official" else "" for s in self.sources
        )
        return "; ".join(dict.fromkeys(w + o for w, o in zip(words, official, strict=True)))

    @property
    def source_kind(self) -> str:
        """What kind of source they come from."""
        return "; ".join(dict.fromkeys(s["made_by"] for s in self.sources))

    def image(self, i: int) -> NDArray[np.uint8]:
        """Return image i as uint8 `(H, W, 3)`, a copy."""
        part = int(np.searchsorted(self.starts, i, side="right")) - 1
        return self.parts[part][i - int(self.starts[part])]


def read_split(folder: Path, expected: int, classes: int, full: bool = False) -> Split:
    """Map a packed split; nothing is copied until an image is taken.

    expected: the number of images the task's row states; classes: labels must lie in [0, classes).
    What a user may overrule (another number of images than the row's) goes into `problems`; what cannot be trained on
    at all raises ValueError that names the folder. full: read all pixels, not only where the files look touched.
    """
    manifest = pack.read_manifest(folder)
    again = "Delete it and prepare the task again."
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is not there: its preparation did not end. Run the same preparation again."
        )
    if manifest is None:
        raise ValueError(f"{folder} holds no packed split of version {pack.VERSION}. {again}")
    try:
        images: NDArray[np.uint8] = np.load(
            folder / "images.npy", mmap_mode="r", allow_pickle=False
        )
        labels: NDArray[np.int64] = np.load(folder / "labels.npy", allow_pickle=False)
        offsets = None if manifest["shape"] else np.load(folder / "offsets.npy", allow_pickle=False)
        ids = json.loads((folder / "ids.json").read_text())
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{folder} cannot be read ({error}). {again}") from error
    shape = (manifest["count"], *manifest["shape"]) if offsets is None else images.shape[:1]
    if (
        images.dtype != np.uint8
        or labels.dtype != np.int64
        or labels.ndim != 1
        or images.shape[1:] != shape[1:]
    ):
        kinds = f"images {images.dtype} {images.shape}, labels {labels.dtype} {labels.shape}"
        raise ValueError(
            f"{folder} holds {kinds}; its manifest says uint8 {shape} and int64. {again}"
        )
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise ValueError(f"{folder / 'ids.json'} is no list of names. {again}")
    found = Images(images, offsets)
    if not len(found) == len(labels) == len(ids) == manifest["count"]:
        counts = f"{len(found)} images, {len(labels)} labels and {len(ids)} ids"
        raise ValueError(
            f"{folder} holds {counts}; its manifest says {manifest['count']} of each. {again}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        span = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"{folder} has labels {span}; 0..{classes - 1} are allowed. {again}")
    same = (
        pack.labels_digest(labels) == manifest["labels"] and pack.ids_digest(ids) == manifest["ids"]
    )
    same = same and manifest["classes"] == np.bincount(labels).tolist()
    if (
        not same
        or not pixels_verified(folder, manifest, full)
        or pack.fingerprint(manifest) != manifest["digest"]
    ):
        raise ValueError(f"{folder} does not match its manifest's digests. {again}")
    problems = (
        [] if len(ids) == expected else [f"{folder} has {len(ids)} images; {expected} are expected"]
    )
    return Split((found,), labels, ids, manifest["digest"], (manifest["source"],), tuple(problems))


def pixels_verified(folder: Path, manifest: dict[str, Any], full: bool) -> bool:
    """Return whether the images match the manifest: by size and time if they were compared before, else in full."""
    files = [folder / name for name in ("images.npy", "offsets.npy") if (folder / name).exists()]
    seen = {
        "pixels": manifest["pixels"],
        "files": [[f.stat().st_size, f.stat().st_mtime_ns] for f in files],
    }
    stamp = folder / "proved.json"
    try:
        if not full and json.loads(stamp.read_text()) == seen:
            return True
    except (OSError, ValueError):
        pass
    if pack.pixels_digest(folder) != manifest["pixels"]:
        return False
    try:
        new = stamp.with_name(f".proved-{os.getpid()}.json")
        new.write_text(json.dumps(seen))
        new.replace(stamp)
    except OSError:  # a read-only copy is compared each time
        pass
    return True


def join_splits(splits: Sequence[Split]) -> Split:
    """Join splits in order, as `train+val`; one split is returned as it is."""
    if len(splits) == 1:
        return splits[0]
    return Split(
        tuple(part for s in splits for part in s.parts),
        np.concatenate([s.labels for s in splits]),
        [i for s in splits for i in s.ids],
        "+".join(s.fingerprint for s in splits),
        tuple(source for s in splits for source in s.sources),
        tuple(problem for s in splits for problem in s.problems),
    )
