"""Prepare the demo suite offline: digits from scikit-learn, everything else drawn."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from san.data.pack import read_manifest, write_split
from san.data.prepare.demo_images import VERSION, draw
from san.tasks import Suite, Task


def digits(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return the 1797 optical digits of the UCI repository, shuffled: uint8 `(1797, 8, 8, 3)`, labels, ids."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  (a second that no other start has to spend)

    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return (
        np.repeat(grey[order, :, :, None], 3, axis=3),
        bunch.target[order].astype(np.int64),
        [f"digits-{i}" for i in order],
    )


def make_images(task: Task, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return all images, labels and ids of a demo task, in the order in which the splits take them."""
    if task.name == "digits":
        return digits(seed)
    total = sum(task.splits.values())
    images, labels = draw(task.name, len(task.classes), total, seed)
    return images, labels, [f"{task.name}-{i}" for i in range(total)]


def pack_demo(suite: Suite, task: Task, folder: Path) -> None:
    """Write the splits of a demo task below `folder`, unless all are there as seed and drawings make them today."""
    starts = {split: sum(list(task.splits.values())[:i]) for i, split in enumerate(task.splits)}
    sources = {
        split: {
            "made_by": "san.data.demo",
            "version": VERSION,
            "seed": suite.seed,
            "start": starts[split],
            "size": size,
        }
        for split, size in task.splits.items()
    }
    if all(
        (read_manifest(folder / split) or {}).get("source") == sources[split] for split in sources
    ):
        return
    images, labels, ids = make_images(task, suite.seed)
    for split, source in sources.items():
        part = slice(starts[split], starts[split] + task.splits[split])
        write_split(
            folder / split, zip(ids[part], labels[part].tolist(), images[part], strict=True), source
        )
