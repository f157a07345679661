"""A data set card: what a person should know of a task, from its row and from what is packed."""

from pathlib import Path

import numpy as np

from san.data import pack, verify
from san.tasks import Task


def task_card(task: Task, home: Path | None) -> str:
    """Return the card in Markdown. home: the packed task, whose classes are then counted; or None."""
    lines = [f"## {task.suite}/{task.name}: {task.label} ({task.group})", ""]
    lines.append(
        "Images: " + ", ".join(f"{part} {size}" for part, size in task.splits.items()) + "."
    )
    if task.official_splits:
        sizes = ", ".join(f"{part} {size}" for part, size in task.official_splits.items())
        lines.append(f"In the official layout, without VPT's json splits: {sizes}.")
    if task.tfds:
        slices = ", ".join(
            f"{part} = {expression}" for part, expression in task.tfds.splits.items()
        )
        lines.append(f"TFDS: {task.tfds.builder} {task.tfds.config}".rstrip() + f", {slices}.")
    lines += [f"Download: {task.download_gb:g} GB." if task.download_gb else ""]
    lines += [f"Bring: {task.how_to_get}." if task.how_to_get else ""]
    lines += [f"Licence, as far as we know: {task.licence}." if task.licence else ""]
    lines += [f"Quirk: {task.quirk}" if task.quirk else ""]
    if home is not None:
        lines += ["", *coverage(task, home)]
    else:
        lines += [
            "",
            f"Classes ({len(task.classes)}): {', '.join(task.classes)}.",
            "Not packed here: nothing was counted.",
        ]
    return "\n".join(line for i, line in enumerate(lines) if line or i == 1) + "\n"


def coverage(task: Task, home: Path) -> list[str]:
    """Say how the classes are covered by each split, and by train + val, and list them by name with their counts."""
    splits = {
        part: verify.load_part(task, home, part)
        for part in verify.parts_of(task, home, "+".join(task.splits))
    }
    names = class_names(task, home)
    counts = {part: verify.class_counts(task, split) for part, split in splits.items()}
    if {"train", "val"} <= counts.keys():
        counts = {
            "train": counts["train"],
            "train+val": counts["train"] + counts["val"],
            "test": counts["test"],
        }
    lines = [f"Packed: {home}, made by {splits['test'].made_by}."]
    for part, numbers in counts.items():
        absent = [name for name, n in zip(names, numbers, strict=True) if n == 0]
        missing = (
            f"; absent: {', '.join(absent[:20])}{' ...' if len(absent) > 20 else ''}"
            if absent
            else ""
        )
        covered = f"{np.count_nonzero(numbers)} of {len(names)} classes"
        lines.append(
            f"{part}: {covered}, {numbers.min()} to {numbers.max()} images a class{missing}."
        )
    lines += ["", f"| label | class | {' | '.join(counts)} |", "|--:|:--|" + "--:|" * len(counts)]
    for label, name in enumerate(names):
        lines.append(
            f"| {label} | {name} | {' | '.join(str(numbers[label]) for numbers in counts.values())} |"
        )
    return lines


def class_names(task: Task, home: Path) -> list[str]:
    """Return class names in label order: the row's, or where these are numbers the source's."""
    manifest = pack.read_manifest(home / "test")
    found = manifest["source"].get("names") if manifest else None
    bare = all(name.isdecimal() for name in task.classes)
    return (
        list(map(str, found))
        if bare and found and len(found) == len(task.classes)
        else list(task.classes)
    )
