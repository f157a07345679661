"""Check a packed task in full: findings for people, and for a run that has to be forced."""

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
            split = packed.load_part(part, recheck=True)
        except Exception as error:  # however it is damaged, the other splits are checked
            findings.append(Finding(False, str(error)))
            continue
        splits[part] = split
        findings += [Finding(False, problem) for problem in split.problems]
        findings.append(Finding(True, _describe_split(task, part, split)))
    # Membership is a matter of both; a damaged one is a finding already.
    if "train" in splits and "val" in splits:
        findings.append(packed.membership())
    findings += packed.overlaps
    return findings


def _describe_split(task: Task, part: str, split: Split) -> str:
    counts = class_counts(task, split)
    present = np.count_nonzero(counts)
    facts = [
        f"{len(split)} images",
        f"{present} of {len(counts)} classes",
        f"{counts.min()} to {counts.max()} images a class",
        f"from {split.source}",
        f"digest {split.fingerprint}",
    ]
    return f"{part}: {', '.join(facts)}"
