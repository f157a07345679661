"""Where a task's packed images are, in which format, how many and how large."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from san.data.resize import RESIZE
from san.errors import DataError, choose
from san.runtime.paths import folder_key
from san.tasks import Task

SYNSET = re.compile(r"n\d{8}")


def storage_format(task: Task, resize: str, image_size: int) -> str:
    """Return the smallest packed format that gives the model the same pixels.

    `native` (small images of one size), `encoded` (image files, for random crops), or the resize
    and the image size in pixels, such as `vtab-224`.
    """
    choose(resize, RESIZE, "resize")
    if task.native_size:
        # Small images take less space than what they are resized to.
        return "native"
    if task.storage == "encoded":
        return "encoded"
    return f"{resize}-{image_size}"


def packed_dir(task: Task, root: Path, resize: str, image_size: int) -> Path:
    """Return the directory of a task's packed splits below `root`.

    Two folders of a user's have two, whatever they are called: no run may find the other's images.
    """
    storage = storage_format(task, resize, image_size)
    name = task.name if task.root is None else folder_key(task.root, task.name)
    return root / task.suite / name / storage


def packed_bytes(task: Task, image_size: int) -> int | None:
    """Return the bytes that a packed task takes, or None for image files of unstated size."""
    if task.storage == "encoded":
        gigabytes = task.size_gb or task.download_gb
        return int(1e9 * gigabytes) if gigabytes else None
    side = task.native_size or image_size
    images = sum(task.splits.values())
    return images * side**2 * 3


def expected_count(task: Task, source: Mapping[str, Any], part: str) -> int:
    """Return how many images a stored split must have in the layout of its source.

    Raises DataError where that layout does not have the split.
    """
    # VPT's json splits and the official ones of a fine-grained set differ in size.
    sizes = task.splits
    if source.get("layout"):
        sizes = task.official_splits or {}
    if part not in sizes:
        layout = source["layout"]
        raise DataError(
            f"{task.suite}/{task.name} has no {part} in the layout {layout}. Prepare it again."
        )
    return int(sizes[part])


def folder_name(class_name: str) -> str:
    """Return the name of a class's folder: the class name, or the synset that it begins with."""
    word = class_name.partition(" ")[0]
    return word if SYNSET.fullmatch(word) else class_name


def class_name_mismatch(task: Task, names: Sequence[str]) -> str:
    """Say how a source's class names differ from the task's, or return an empty string.

    Only counts are compared where the names of one side are all numbers.
    """
    if not names:
        return ""
    expected = [folder_name(name) for name in task.classes]
    found = [folder_name(str(name)) for name in names]
    title = f"{task.suite}/{task.name}"
    if len(expected) != len(found):
        return f"The source names {len(found)} classes, {title} has {len(expected)}"
    # Sources such as TFDS number the classes of some tasks; numbers say nothing about names.
    if _are_numbers(expected) or _are_numbers(found):
        return ""
    pairs = zip(expected, found, strict=True)
    different = [(ours, theirs) for ours, theirs in pairs if ours != theirs]
    if not different:
        return ""
    ours, theirs = different[0]
    count = len(different)
    return f"The source names class '{theirs}' where {title} has '{ours}' ({count} differ)"


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)
