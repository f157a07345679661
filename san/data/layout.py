"""Where a task's packed images are, in which form, how many and how large: facts of a row, not of a source."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from san.data.resize import RESIZE
from san.errors import choose
from san.tasks import Task

SYNSET = re.compile(r"n\d{8}")


def storage_format(task: Task, resize: str, side: int) -> str:
    """Return a task's packed form: the smallest from which the model gets the same pixels.

    `native` (small images of one size), `encoded` (the files, for random crops), or a resize and a side, `vtab-224`.
    """
    choose(resize, RESIZE, "resize")
    if task.native_size:
        return "native"
    return "encoded" if task.storage == "encoded" else f"{resize}-{side}"


def packed_dir(task: Task, root: Path, resize: str, side: int) -> Path:
    """Return the folder of a task's splits below `root`."""
    return root / task.suite / task.name / storage_format(task, resize, side)


def packed_bytes(task: Task, side: int) -> int | None:
    """Return how many bytes a packed task takes; for files kept as they are what the row states, or None."""
    if task.storage == "encoded":
        size = task.size_gb or task.download_gb
        return int(1e9 * size) if size else None
    return sum(task.splits.values()) * 3 * (task.native_size or side) ** 2


def expected_count(task: Task, source: Mapping[str, Any], part: str) -> int:
    """Return how many images a split must have in the layout that its source has."""
    sizes = (task.official_splits or {}) if source.get("layout") else task.splits
    return int(sizes[part])


def folder_name(class_name: str) -> str:
    """Return what the folder of a class is called: its name, and of ImageNet's names the synset."""
    word = class_name.partition(" ")[0]
    return word if SYNSET.fullmatch(word) else class_name


def class_name_mismatch(task: Task, names: Sequence[str]) -> str:
    """Say how a source's class names differ from the row's, or nothing; numbers are no names."""
    known, found = (
        [folder_name(name) for name in task.classes],
        [folder_name(str(name)) for name in names],
    )
    if not found:
        return ""
    if len(known) != len(found):
        return f"The source names {len(found)} classes, {task.suite}/{task.name} has {len(known)}"
    named = any(not name.isdecimal() for name in known) and any(
        not name.isdecimal() for name in found
    )
    odd = [(ours, theirs) for ours, theirs in zip(known, found, strict=True) if ours != theirs]
    if not named or not odd:
        return ""
    return f"The source names class '{odd[0][1]}' where {task.suite}/{task.name} has '{odd[0][0]}' ({len(odd)} differ)"
