"""The packed splits of one task, with their manifests read once.

Are they what they say, and are they the benchmark?
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from san.data.layout import class_name_mismatch, expected_count
from san.data.manifest import Manifest, ids_digest, read_manifest
from san.data.overlap import describe_shared_names, find_duplicates
from san.data.proof import MAX_DECODED, Hashes
from san.data.split import Split, StoredSplit, join_splits, open_split
from san.errors import DataError, UnknownNameError
from san.tasks import Task


@dataclass(frozen=True)
class Finding:
    """Something that was checked. good: True, False, or None where it cannot be known."""

    good: bool | None
    text: str


@dataclass(frozen=True)
class PackedTask:
    """A task in one folder. manifests: of each of its splits; None where there is none."""

    task: Task
    folder: Path
    manifests: Mapping[str, Manifest | None]
    _splits: dict[str, StoredSplit] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(cls, task: Task, folder: Path) -> "PackedTask":
        """Read the manifests of a task's splits; images stay untouched."""
        manifests = {part: read_manifest(folder / part) for part in task.splits}
        return cls(task, folder, manifests)

    def source(self, part: str) -> Mapping[str, Any]:
        """Return how a stored split was made; nothing where it has no manifest."""
        manifest = self.manifests.get(part)
        return manifest["source"] if manifest else {}

    def parts(self, split: str) -> list[str]:
        """Return the stored splits that make up `split`, such as `train+val`.

        The official layout of a fine-grained set has no val, which is a part of its train.
        Raises UnknownNameError where nothing is left.
        """
        parts = self.task.parts(split)
        layout = self.source("train").get("layout")
        if layout is None:
            return parts
        official = self.task.official_splits or {}
        kept = [part for part in parts if part in official]
        if not kept:
            raise UnknownNameError(
                f"{self._name} was packed from its {layout} layout, which has no {split}; "
                f"allowed: {', '.join(official)}. VPT's json splits have one."
            )
        return kept

    def load_part(self, part: str, recheck: bool = False) -> StoredSplit:
        """Open a stored split, once, checked as `open_split` says and by its classes and ids.

        recheck: compare all pixels with their digest, and hash them again.
        """
        if recheck or part not in self._splits:
            split = open_split(
                self.folder / part,
                self.manifests.get(part),
                expected_count(self.task, self.source(part), part),
                len(self.task.classes),
                recheck,
            )
            problems = (*split.problems, *self._find_problems(part, split))
            self._splits[part] = replace(split, problems=problems)
        return self._splits[part]

    def split(self, name: str) -> Split:
        """Return a split (`train`, `val`, `test`, or a sum such as `train+val`).

        Its `problems` include those of the task's membership, and images that any two of its stored
        splits share.
        """
        parts = [self.load_part(part) for part in self.parts(name)]
        split = join_splits(parts)
        findings = [self.membership(), *self.overlaps]
        problems = [f"{self.folder}: {found.text}" for found in findings if found.good is False]
        return replace(split, problems=(*split.problems, *problems))

    @cached_property
    def overlaps(self) -> Sequence[Finding]:
        """What any two stored splits share, of all that can be opened; compared once.

        Equal images under other ids are no problem (None) where they are few, or where splits are
        known to be disjoint: the benchmark's own, or rows of TFDS's. Image files are compared by
        the pixels that they decode to, or by their bytes where a split has more than MAX_DECODED.
        """
        splits = self._openable_splits()
        if len(splits) < 2:
            return ()
        ids = {part: split.ids for part, split in splits.items()}
        hashes, findings = _comparable_hashes(splits)
        from_tfds = all(self.source(part)["made_by"] == "TFDS" for part in splits)
        # An id of TFDS's is that of an image in its split.
        shared = describe_shared_names(ids, hashes if from_tfds else None)
        findings += [Finding(False, text) for text in shared]
        is_disjoint = from_tfds or self._is_benchmark(splits)
        for duplicates in find_duplicates(ids, hashes):
            is_leak = duplicates.many and not is_disjoint
            findings.append(Finding(False if is_leak else None, duplicates.text))
        return findings

    def _openable_splits(self) -> dict[str, StoredSplit]:
        """Return the stored splits that are not missing or damaged."""
        splits = {}
        for part in self.parts("+".join(self.task.splits)):
            with contextlib.suppress(DataError):
                splits[part] = self.load_part(part)
        return splits

    def _is_benchmark(self, splits: Mapping[str, Split]) -> bool:
        """Return whether the images are known to be the benchmark's, by their ids."""
        return {"train", "val"} <= splits.keys() and self.membership().good is True

    def check_single_source(self) -> None:
        """Raise DataError where splits come from different sources.

        What one source trains on, the other may test on.
        """
        origins = {}
        for part, manifest in self.manifests.items():
            if manifest is not None:
                source = manifest["source"]
                # Not all of it: seeds, counts and digests may differ from split to split.
                keys = ("made_by", "builder", "layout")
                origins[part] = tuple(source.get(key) for key in keys)
        if len(set(origins.values())) <= 1:
            return
        described = [f"{part} from {_join_words(origin)}" for part, origin in origins.items()]
        raise DataError(
            f"{self.folder} mixes sources: {', '.join(described)}. "
            "Prepare it again from one of them."
        )

    def membership(self) -> Finding:
        """Compare the ids of train and val with those that define the benchmark.

        Neither is always known: a source may number its images itself.
        """
        wanted = self.task.ids_digest
        if wanted is None:
            return Finding(None, "membership cannot be verified: no digest of its ids is known")
        kinds = [self.source(part).get("ids") for part in ("train", "val")]
        if kinds != ["upstream", "upstream"]:
            why = "this source keeps no ids of the benchmark's"
            return Finding(None, f"membership cannot be verified: {why}")
        ids = [*self.load_part("train").ids, *self.load_part("val").ids]
        found = ids_digest(ids)
        if found == wanted:
            return Finding(True, f"the ids of train and val are the benchmark's ({found})")
        return Finding(
            False,
            f"the ids of train and val give {found}, the benchmark's {wanted}: "
            "other images were chosen",
        )

    @property
    def _name(self) -> str:
        return f"{self.task.suite}/{self.task.name}"

    def _find_problems(self, part: str, split: Split) -> list[str]:
        """Say where the classes or ids of a stored split are not those of the benchmark."""
        where = self.folder / part
        problems = []
        names = self.source(part).get("names") or ()
        mismatch = class_name_mismatch(self.task, names)
        if mismatch:
            problems.append(f"{where}: {mismatch}")
        classes = len(np.unique(split.labels))
        expected = self.task.test_classes
        if part == "test" and expected is not None and classes != expected:
            problems.append(f"{where} has images of {classes} classes; {expected} are expected")
        missing = _missing_classes(self.task, part, split)
        if missing is not None:
            problems.append(f"{where} {missing}")
        repeated = len(split.ids) - len(set(split.ids))
        if repeated:
            problems.append(f"{where} has {repeated} images twice")
        return problems


def _comparable_hashes(
    splits: Mapping[str, StoredSplit],
) -> tuple[dict[str, Hashes], list[Finding]]:
    """Return hashes of all splits that are of one kind, and what they cannot show."""
    large = [part for part, split in splits.items() if split.is_compared_by_bytes]
    hashes = {}
    for part, split in splits.items():
        pixels = None if large else split.pixel_hashes
        hashes[part] = split.hashes if pixels is None else pixels
    if not large:
        return hashes, []
    text = (
        f"images are compared by the bytes of their files, not by their pixels: {large[0]} has "
        f"{len(splits[large[0]])}, and at most {MAX_DECODED} of a split are decoded. "
        "One that was saved again is not recognised"
    )
    return hashes, [Finding(None, text)]


def class_counts(task: Task, split: Split) -> NDArray[np.int64]:
    """Return how many images each class has in a split."""
    return np.bincount(split.labels, minlength=len(task.classes))


def _missing_classes(task: Task, part: str, split: Split) -> str | None:
    """Say which classes a split lacks that a benchmark has; None where it lacks none.

    Test images show every class and training images at least half of them. Nothing is asked of
    val: 200 images cannot show all classes of Sun397.
    """
    if part == "val" or not task.covers_all_classes:
        return None
    absent = int((class_counts(task, split) == 0).sum())
    most = 0 if part == "test" else len(task.classes) // 2
    if absent <= most:
        return None
    return f"has no images of {absent} of {len(task.classes)} classes; at most {most} may be absent"


def _join_words(words: tuple[str | None, ...]) -> str:
    return " ".join(word for word in words if word)
