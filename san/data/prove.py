"""Is a packed copy what it says, and is it the benchmark? Findings for people, and for a run that has to be forced."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from san.data import pack
from san.data.prepare import expected
from san.data.split import Split, read
from san.tasks import Task


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
    manifest = pack.manifest_of(home / "train")
    layout: Any = manifest["source"].get("layout") if manifest else None
    kept = parts if layout is None else [part for part in parts if part in task.facts[layout]]
    if not kept:
        raise LookupError(
            f"{task.suite}/{task.name} was packed from its {layout} layout, which has no {split}; "
            f"allowed: {', '.join(task.facts[layout])}. VPT's json splits have one."
        )
    return kept


def load_part(task: Task, home: Path, part: str) -> Split:
    """Open a stored split, checked as `san.data.split.read` says."""
    manifest = pack.manifest_of(home / part)
    count = task.splits[part] if manifest is None else expected(task, manifest["source"], part)
    return read(home / part, count, len(task.classes))


def membership(task: Task, home: Path) -> Finding:
    """Compare the ids of train and val with those that define the benchmark, where they are known and kept."""
    wanted = task.facts.get("ids")
    manifests = [pack.manifest_of(home / part) for part in ("train", "val")]
    kept = all(m is not None and m["source"].get("ids") == "upstream" for m in manifests)
    if wanted is None or not kept:
        why = "no digest of its ids is known" if wanted is None else "this source keeps no ids of the benchmark's"
        return Finding(None, f"membership cannot be proved: {why}")
    ids = [i for part in ("train", "val") for i in load_part(task, home, part).ids]
    found = pack.ids_digest(ids)
    if found == wanted:
        return Finding(True, f"the ids of train and val are the benchmark's ({found})")
    return Finding(False, f"the ids of train and val give {found}, the benchmark's {wanted}: other images were chosen")


def verify(task: Task, home: Path) -> list[Finding]:
    """Check a packed task in full, pixels included; a split that cannot be read is a finding, too."""
    findings = []
    splits: dict[str, Split] = {}
    for part in parts_of(task, home, "+".join(task.splits)):
        try:
            (home / part / "proved.json").unlink(missing_ok=True)  # so that every pixel is read
            splits[part] = load_part(task, home, part)
        except ValueError as error:
            findings.append(Finding(False, str(error)))
            continue
        findings += [Finding(False, problem) for problem in splits[part].problems]
        findings.append(Finding(True, about(task, part, splits[part])))
    if {"train", "val"} <= splits.keys():
        findings.append(membership(task, home))
    findings += overlaps(splits)
    return findings


def about(task: Task, part: str, split: Split) -> str:
    """Say what a split holds."""
    held = np.bincount(split.labels, minlength=len(task.classes))
    return (
        f"{part}: {len(split)} images, {np.count_nonzero(held)} of {len(held)} classes, {held.min()} to {held.max()} "
        f"images a class, digest {split.fingerprint}"
    )


def overlaps(splits: dict[str, Split]) -> Sequence[Finding]:
    """Report an id that is in two splits."""
    pairs = [(a, b) for a in splits for b in splits if a < b]
    shared = [(a, b, len(set(splits[a].ids) & set(splits[b].ids))) for a, b in pairs]
    return [Finding(False, f"{a} and {b} share {n} images") for a, b, n in shared if n]
