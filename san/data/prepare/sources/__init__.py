"""Where images come from. Each module reads one layout; `find_source` tells which a path has."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from san.data.prepare.sources import fgvc, folders, tfds, vtab_lists
from san.data.prepare.sources.files import open_root
from san.errors import MissingFileError
from san.tasks import Task


class Source(Protocol):
    """One task's images in one place."""

    @property
    def parts(self) -> Sequence[str]:
        """The splits that it has (`train`, `val`, `test`)."""

    @property
    def pixel_scale(self) -> int:
        """The factor by which stored pixels are multiplied."""

    @property
    def as_shown(self) -> bool:
        """Whether image files are decoded as viewers show them; see `images.decode_image`."""

    @property
    def names(self) -> Sequence[str] | None:
        """Class names in label order, where it states them."""

    def describe(self, part: str) -> dict[str, Any]:
        """Say what it is, for the manifest; equal for equal data."""

    def count(self, part: str) -> int:
        """Return how many images a split has."""

    def ids(self, part: str) -> Sequence[str]:
        """Return the ids of a split's images, or nothing where only reading these tells."""

    def paths(self, part: str) -> Sequence[str]:
        """Return the paths of a split's images, or nothing where they are not files."""

    def examples(self, part: str) -> Iterator[tuple[str, int, bytes]]:
        """Yield id, label and the bytes of the image file; raise DataError on a damaged source."""


# What the help of scripts/prepare.py says of each layout, and its reader, in the order of trial.
LAYOUTS = {
    "a vtab-1k folder (train800.txt ...)": vtab_lists.open_task,
    "VPT's train.json, val.json, test.json beside the images": fgvc.open_json,
    "images.txt, image_class_labels.txt, train_test_split.txt (CUB-200-2011, NABirds)": (
        fgvc.open_birds
    ),
    "a TFDS data folder (BUILDER/VERSION/dataset_info.json)": tfds.open_task,
    "folders of images, train/CLASS/ and val/CLASS/ or test/CLASS/": folders.open_task,
}


def find_source(task: Task, path: Path) -> Source:
    """Return the source of a task at `path`, a folder or a zip file.

    Raises MissingFileError, which lists the layouts that were looked for, where there is none, and
    DataError where there is one that is damaged.
    """
    root = open_root(path)
    for open_layout in LAYOUTS.values():
        source: Source | None = open_layout(task, root)
        if source is not None:
            return source
    layouts = "".join(f"\n    {layout}" for layout in LAYOUTS)
    raise MissingFileError(
        f"Nothing of {task.suite}/{task.name} is at {path}. Looked for:{layouts}"
    )
