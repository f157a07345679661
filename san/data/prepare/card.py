"""A data set card: what a person should know of a task, from its row and from what is packed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from san.data.packed_task import PackedTask, class_counts
from san.tasks import Task, TfdsSource

MOST_ABSENT = 20  # classes that are listed by name

ClassCounts = NDArray[np.int64]  # images of each class, `(classes,)`


def task_card(task: Task, folder: Path | None) -> str:
    """Return the card in Markdown.

    folder: where the task is packed, so that its classes can be counted; None where it is not.
    """
    title = f"{task.suite}/{task.name}"
    lines = [
        f"## {title}: {task.label} ({task.group})",
        "",
        *_describe_row(task),
        "",
    ]
    if folder is not None:
        packed = PackedTask.open(task, folder)
        lines += _describe_packed(packed)
    else:
        classes = ", ".join(task.classes)
        lines += [
            f"Classes ({len(task.classes)}): {classes}.",
            "Not packed here: nothing was counted.",
        ]
    return "\n".join(lines) + "\n"


def class_names(packed: PackedTask) -> list[str]:
    """Return class names in label order: the row's, or where these are numbers the source's."""
    classes = list(packed.task.classes)
    if not all(name.isdecimal() for name in classes):
        return classes
    found = packed.source("test").get("names") or ()
    if len(found) != len(classes):
        return classes
    return [str(name) for name in found]


def _describe_row(task: Task) -> list[str]:
    """Return what the task's row in `benchmarks/` says, a line for each fact."""
    facts = {"Images": _join_pairs(task.splits, " ")}
    if task.official_splits:
        layout = "In the official layout, without VPT's json splits"
        facts[layout] = _join_pairs(task.official_splits, " ")
    if task.tfds:
        facts["TFDS"] = _describe_tfds(task.tfds)
    if task.download_gb:
        facts["Download"] = f"{task.download_gb:g} GB"
    facts |= {
        "Bring": task.how_to_get,
        "Licence, as far as we know": task.licence,
        "Quirk": task.quirk.removesuffix("."),
    }
    return [f"{name}: {fact}." for name, fact in facts.items() if fact]


def _describe_tfds(source: TfdsSource) -> str:
    name = f"{source.builder} {source.config}".rstrip()
    slices = _join_pairs(source.splits, " = ")
    return f"{name}, {slices}"


def _join_pairs(pairs: Mapping[str, object], between: str) -> str:
    texts = [f"{name}{between}{value}" for name, value in pairs.items()]
    return ", ".join(texts)


def _describe_packed(packed: PackedTask) -> Iterator[str]:
    """Yield how each split, and train + val, cover the classes, and a table of all counts."""
    names = class_names(packed)
    source = packed.load_part("test").source
    yield f"Packed: {packed.folder}, made by {source}."
    counts = _count_classes(packed)
    for split, numbers in counts.items():
        yield _describe_coverage(split, numbers, names)
    yield ""
    yield from _class_table(names, counts)


def _count_classes(packed: PackedTask) -> dict[str, ClassCounts]:
    """Return how many images each class has, in `train+val` in place of `val` if there are both."""
    task = packed.task
    all_splits = "+".join(task.splits)
    counts = {}
    for part in packed.parts(all_splits):
        split = packed.load_part(part)
        counts[part] = class_counts(task, split)
    if not {"train", "val"} <= counts.keys():
        return counts
    return {
        "train": counts["train"],
        "train+val": counts["train"] + counts["val"],
        "test": counts["test"],
    }


def _describe_coverage(split: str, counts: ClassCounts, names: Sequence[str]) -> str:
    """Say how many classes have images in a split, and which have none."""
    absent = [names[label] for label in np.flatnonzero(counts == 0).tolist()]
    covered = len(names) - len(absent)
    fewest = counts.min()
    most = counts.max()
    text = f"{split}: {covered} of {len(names)} classes, {fewest} to {most} images a class"
    if absent:
        first = ", ".join(absent[:MOST_ABSENT])
        text += f"; absent: {first}"
    if len(absent) > MOST_ABSENT:
        text += " ..."
    return f"{text}."


def _class_table(names: Sequence[str], counts: Mapping[str, ClassCounts]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a row for each class, a column for each split."""
    yield _table_row(["label", "class", *counts])
    yield "|--:|:--|" + "--:|" * len(counts)
    for label, name in enumerate(names):
        cells = [str(label), name]
        for of_classes in counts.values():
            cells.append(str(of_classes[label]))
        yield _table_row(cells)


def _table_row(cells: Sequence[str]) -> str:
    text = " | ".join(cells)
    return f"| {text} |"
