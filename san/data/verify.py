"""Is a packed copy what it says, and is it the benchmark? Findings for people, and for a run that has to be forced."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san.data import pack
from san.data.layout import class_name_mismatch, expected_count
from san.data.split import Split, read_split
from san.tasks import Task

UNBALANCED = ("folder", "robustness")  # whose test images need not have all classes


@dataclass(frozen=True)
class Finding:
    """good: True, False, or None where it cannot be told."""

    good: bool | None
    text: str


def parts_of(task: Task, home: Path, split: str) -> list[str]:
    """Return the stored splits that make up `split` in a packed form.

    The official layout of a fine-grained set has no val: it is in `train`. Raises LookupError where nothing is left.
    """
    parts = task.parts(split)
    manifest = pack.read_manifest(home / "train")
    layout: Any = manifest["source"].get("layout") if manifest else None
    official = task.official_splits or {}
    kept = parts if layout is None else [part for part in parts if part in official]
    if not kept:
        raise LookupError(
            f"{task.suite}/{task.name} was packed from its {layout} layout, which has no {split}; "
            f"allowed: {', '.join(official)}. VPT's json splits have one."
        )
    return kept


def load_part(task: Task, home: Path, part: str, full: bool = False) -> Split:
    """Open a stored split, checked as `san.data.split.read` says, and by the names of its classes."""
    source = (pack.read_manifest(home / part) or {}).get("source", {})
    split = read_split(home / part, expected_count(task, source, part), len(task.classes), full)
    problems = list(split.problems)
    if odd := class_name_mismatch(task, source.get("names") or ()):
        problems.append(f"{home / part}: {odd}")
    wanted = task.test_classes or len(task.classes)
    if (
        part == "test"
        and task.test_classes is not None
        and (found := len(np.unique(split.labels))) != wanted
    ):
        problems.append(f"{home / part} has images of {found} classes; {wanted} are expected")
    if (missing := missing_classes(task, part, split)) is not None:
        problems.append(f"{home / part} {missing}")
    if repeated := len(split.ids) - len(set(split.ids)):
        problems.append(f"{home / part} has {repeated} images twice")
    return replace(split, problems=tuple(problems))


def missing_classes(task: Task, part: str, split: Split) -> str | None:
    """Say which classes a benchmark's split cannot lack: test images have all, training images half at least.

    Nothing is asked of val: 200 images cannot have all of Sun397's classes.
    """
    absent = int((class_counts(task, split) == 0).sum())
    most = 0 if part == "test" else len(task.classes) // 2
    if task.suite in UNBALANCED or part == "val" or absent <= most:
        return None
    return f"has no images of {absent} of {len(task.classes)} classes; at most {most} may be absent"


def check_single_source(task: Task, home: Path) -> None:
    """Raise ValueError where splits come from different sources: what one trains on the other may test on."""
    manifests = {part: pack.read_manifest(home / part) for part in task.splits}
    sources = {part: m["source"] for part, m in manifests.items() if m is not None}
    kinds = {
        part: [s.get(key) for key in ("made_by", "builder", "layout")]
        for part, s in sources.items()
    }
    if len({str(kind) for kind in kinds.values()}) > 1:
        said = ", ".join(
            f"{part} from {' '.join(filter(None, kind))}" for part, kind in kinds.items()
        )
        raise ValueError(f"{home} mixes sources: {said}. Prepare it again from one of them.")


def membership(task: Task, home: Path) -> Finding:
    """Compare the ids of train and val with those that define the benchmark, where they are known and kept."""
    wanted = task.ids_digest
    manifests = [pack.read_manifest(home / part) for part in ("train", "val")]
    kept = all(m is not None and m["source"].get("ids") == "upstream" for m in manifests)
    if wanted is None or not kept:
        why = (
            "no digest of its ids is known"
            if wanted is None
            else "this source keeps no ids of the benchmark's"
        )
        return Finding(None, f"membership cannot be proved: {why}")
    ids = [i for part in ("train", "val") for i in load_part(task, home, part).ids]
    found = pack.ids_digest(ids)
    if found == wanted:
        return Finding(True, f"the ids of train and val are the benchmark's ({found})")
    return Finding(
        False,
        f"the ids of train and val give {found}, the benchmark's {wanted}: other images were chosen",
    )


def verify(task: Task, home: Path) -> list[Finding]:
    """Check a packed task in full, pixels included; a split that cannot be read is a finding, too."""
    findings = []
    splits: dict[str, Split] = {}
    try:
        check_single_source(task, home)
    except ValueError as error:
        findings.append(Finding(False, str(error)))
    for part in parts_of(task, home, "+".join(task.splits)):
        try:
            splits[part] = load_part(task, home, part, full=True)
        except Exception as error:  # however it is damaged, the other splits are looked at
            findings.append(Finding(False, str(error)))
            continue
        findings += [Finding(False, problem) for problem in splits[part].problems]
        findings.append(Finding(True, describe_split(task, part, splits[part])))
    if {"train", "val"} <= splits.keys():
        findings.append(membership(task, home))
    findings += overlaps(splits)
    return findings


def describe_split(task: Task, part: str, split: Split) -> str:
    """Say what a split holds."""
    numbers = class_counts(task, split)
    return (
        f"{part}: {len(split)} images, {np.count_nonzero(numbers)} of {len(numbers)} classes, "
        f"{numbers.min()} to {numbers.max()} images a class, from {split.source}, digest {split.fingerprint}"
    )


def class_counts(task: Task, split: Split) -> NDArray[np.int64]:
    """Return how many images each class has in a split."""
    return np.bincount(split.labels, minlength=len(task.classes))


def overlaps(splits: dict[str, Split]) -> Sequence[Finding]:
    """Report an id that is in two splits."""
    pairs = [(a, b) for a in splits for b in splits if a < b]
    shared = [(a, b, len(set(splits[a].ids) & set(splits[b].ids))) for a, b in pairs]
    return [Finding(False, f"{a} and {b} share {n} images") for a, b, n in shared if n]
