"""Prepare the demo suite offline: digits from scikit-learn, everything else drawn."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san.data.manifest import read_manifest
from san.data.pack import write_split
from san.data.prepare.demo_images import VERSION, draw
from san.tasks import Suite, Task

GREY_LEVELS = 16  # of scikit-learn's digits, 0 to 16


def digits(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return the 1797 optical digits of the UCI repository, shuffled.

    Images are uint8 `(1797, 8, 8, 3)`, labels int64 `(1797,)`; ids are the numbers of their rows.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  (importing it takes a second)

    bunch = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(bunch.target))
    grey = np.rint(bunch.images * (255 / GREY_LEVELS))
    shuffled = grey.astype(np.uint8)[order]
    images = np.repeat(
        shuffled[..., None],
        3,
        axis=3,
    )
    labels = bunch.target[order].astype(np.int64)
    ids = [f"digits-{i}" for i in order]
    return images, labels, ids


def _make_images(task: Task, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return all images, labels and ids of a demo task, in the order of its splits."""
    if task.name == "digits":
        return digits(seed)
    total = sum(task.splits.values())
    images, labels = draw(task.name, len(task.classes), total, seed)
    ids = [f"{task.name}-{i}" for i in range(total)]
    return images, labels, ids


def pack_demo(suite: Suite, task: Task, folder: Path) -> None:
    """Write the splits of a demo task below `folder`.

    Nothing is written if all are there, made with the same seed and version of the drawings.
    """
    sources = _split_sources(suite, task)
    # If one is missing all are written, so that none is of another seed or version.
    missing = [part for part in sources if not _is_packed(folder / part, sources[part])]
    if not missing:
        return
    images, labels, ids = _make_images(task, suite.seed)
    for part, source in sources.items():
        start = source["start"]
        rows = slice(start, start + source["size"])
        examples = zip(
            ids[rows],
            labels[rows].tolist(),
            images[rows],
            strict=True,
        )
        write_split(folder / part, examples, source)


def _split_sources(suite: Suite, task: Task) -> dict[str, dict[str, Any]]:
    """Say how each split is made, for its manifest; the splits follow one another."""
    sources = {}
    start = 0
    for part, size in task.splits.items():
        sources[part] = {
            "made_by": "san.data.demo",
            "version": VERSION,
            "seed": suite.seed,
            "start": start,
            "size": size,
        }
        start += size
    return sources


def _is_packed(folder: Path, source: dict[str, Any]) -> bool:
    manifest = read_manifest(folder)
    return manifest is not None and manifest["source"] == source
