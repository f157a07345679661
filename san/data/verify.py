"""Check a packed task in full: findings for people, and for a run that has to be forced."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from san.data.packed_task import Finding, PackedTask, class_counts
from san.data.split import Split
from san.errors import DataError
from san.tasks import Task


def verify(task: Task, folder: Path) -> list[Finding]:
    """Check a packed task, all pixels included; a split that cannot be read is a finding, too."""
    packed = PackedTask.open(task, folder)
    findings = []
    splits: dict[str, Split] = {}
    try:
        packed.check_single_source()
    except DataError as error:
        findings.append(Finding(False, str(error)))
    for part in packed.parts("+".join(task.splits)):
        try:
            splits[part] = packed.load_part(part, full=True)
        except Exception as error:  # however it is damaged, the other splits are checked
            findings.append(Finding(False, str(error)))
            continue
        findings += [Finding(False, problem) for problem in splits[part].problems]
        findings.append(Finding(True, _describe_split(task, part, splits[part])))
    if {"train", "val"} <= splits.keys():
        findings.append(packed.membership())
    return findings + _find_overlaps(splits)


def _describe_split(task: Task, part: str, split: Split) -> str:
    counts = class_counts(task, split)
    return (
        f"{part}: {len(split)} images, {np.count_nonzero(counts)} of {len(counts)} classes, "
        f"{counts.min()} to {counts.max()} images a class, from {split.source}, "
        f"digest {split.fingerprint}"
    )


def _find_overlaps(splits: Mapping[str, Split]) -> list[Finding]:
    """Report ids that are in two splits."""
    findings = []
    for first, second in combinations(sorted(splits), 2):
        shared = len(set(splits[first].ids) & set(splits[second].ids))
        if shared:
            findings.append(Finding(False, f"{first} and {second} share {shared} images"))
    return findings
