"""A packed task: its manifests are read once, and what is not the benchmark is found."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from san.data import task_data
from san.data.layout import packed_dir
from san.data.pack import ids_digest, write_split
from san.data.packed_task import PackedTask
from san.data.split import Split
from san.data.verify import verify
from san.errors import DataError, UnknownNameError
from san.runtime import files
from san.tasks import Task, load_suite

VTAB = load_suite("vtab")
FGVC = load_suite("fgvc")
UPSTREAM = {"made_by": "TFDS", "builder": "cifar/3.0.2", "ids": "upstream"}
LABELS = {"train": [0, 1, 2, 0, 1], "val": [0, 1], "test": [0, 1, 2]}


def ids_of(part: str) -> list[str]:
    return [f"{part}-{i}" for i in range(len(LABELS[part]))]


def small_task(**changes: Any) -> Task:
    """VTAB's cifar with three classes and ten images, whose ids are known."""
    facts: dict[str, Any] = {
        "classes": ("a", "b", "c"),
        "splits": {part: len(labels) for part, labels in LABELS.items()},
        "ids_digest": ids_digest([*ids_of("train"), *ids_of("val")]),
    }
    return replace(VTAB.task("cifar"), **(facts | changes))


def image_of(name: str) -> np.ndarray:
    """An image of noise that its id tells."""
    return np.random.default_rng(list(name.encode())).integers(0, 255, (32, 32, 3)).astype(np.uint8)


def write_part(
    folder: Path, part: str, labels: list[int], ids: list[str], source: Mapping[str, Any]
) -> None:
    images = [image_of(name) for name in ids]
    rows = zip(ids, labels, images, strict=True)
    write_split(folder / part, rows, dict(source))


def write_task(folder: Path, source: Mapping[str, Any] = UPSTREAM) -> Path:
    for part, labels in LABELS.items():
        write_part(folder, part, labels, ids_of(part), source)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the files of packed splits that are read, by name."""
    counts: Counter[str] = Counter()
    check_regular = files.check_regular

    def counted(path: Path) -> None:
        counts[path.name] += 1
        check_regular(path)

    monkeypatch.setattr(files, "check_regular", counted)
    return counts


def test_manifests_are_read_once_and_splits_are_opened_once(
    tmp_path: Path, reads: Counter[str]
) -> None:
    task = small_task()
    folder = write_task(packed_dir(task, tmp_path, "vtab", 32))
    for part in LABELS:
        PackedTask.open(task, folder).load_part(part)  # compares pixels, which is done once, ever
    reads.clear()
    packed = task_data.open_task(VTAB, task, tmp_path, "vtab", 32)
    assert len(packed.split("train+val")) == 7
    assert len(packed.split("test")) == 3
    assert reads["manifest.json"] == 3
    assert reads["labels.npy"] == reads["images.npy"] == reads["ids.json"] == 3


def test_a_split_alone_is_compared_with_all_that_are_stored(
    tmp_path: Path, reads: Counter[str]
) -> None:
    task = small_task(ids_digest=None)
    folder = write_task(packed_dir(task, tmp_path, "vtab", 32))
    for part in LABELS:
        PackedTask.open(task, folder).load_part(part)  # leaves its proof
    for name in ("train+val", "test"):
        reads.clear()
        task_data.load_split(VTAB, task, name, tmp_path, "vtab", 32)
        assert reads["manifest.json"] == reads["labels.npy"] == reads["hashes.npy"] == 3
    assert len(list(folder.glob("*/proved.json"))) == 3
    write_part(folder, "val", LABELS["val"], ["test-0", "val-1"], UPSTREAM)
    with pytest.raises(DataError, match="val and test share 1 images: test-0"):
        task_data.load_split(VTAB, task, "train", tmp_path, "vtab", 32)


def test_membership_is_told_by_the_ids_of_train_and_val(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    assert PackedTask.open(small_task(), folder).membership().good is True
    unknown = PackedTask.open(small_task(ids_digest=None), folder)
    assert unknown.membership().good is None
    assert unknown.split("test").problems == ()
    other = PackedTask.open(small_task(ids_digest="0" * 16), folder)
    assert other.membership().good is False
    assert other.split("test").problems == (f"{folder}: {other.membership().text}",)
    write_part(folder, "val", LABELS["val"], ids_of("val"), {"made_by": "a folder"})
    assert PackedTask.open(small_task(), folder).membership().good is None


def test_splits_of_different_sources_are_refused(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    PackedTask.open(small_task(), folder).check_single_source()
    source = UPSTREAM | {"builder": "cifar/2.0.0"}
    write_part(folder, "train", LABELS["train"], ids_of("train"), source)
    packed = PackedTask.open(small_task(), folder)
    message = "mixes sources: train from TFDS cifar/2.0.0, val from TFDS cifar/3.0.2, test from"
    with pytest.raises(DataError, match=message):
        packed.check_single_source()
    found = [finding.text for finding in verify(small_task(), folder) if finding.good is False]
    assert len(found) == 1
    assert "mixes sources" in found[0]


def test_the_official_layout_has_no_val(tmp_path: Path) -> None:
    task = replace(
        FGVC.task("cub"),
        classes=("a", "b", "c"),
        splits={"train": 4, "val": 1, "test": 3},
        official_splits={"train": 5, "test": 3},
        storage="array",
        native_size=32,
    )
    source = {"made_by": "CUB's files", "layout": "official"}
    for part in ("train", "test"):
        write_part(tmp_path, part, LABELS[part], ids_of(part), source)
    packed = PackedTask.open(task, tmp_path)
    assert packed.parts("train+val") == ["train"]
    split = packed.split("train+val")
    assert (len(split), split.problems) == (5, ())
    assert split.source == "CUB's files, official split"
    assert split.source_kind == "CUB's files"
    with pytest.raises(UnknownNameError, match="which has no val; allowed: train, test"):
        packed.parts("val")
    assert unused_val(packed, "train", "test") is None


def unused_val(packed: PackedTask, *names: str, force: bool = False) -> Split | None:
    """The val split that a run on these splits leaves alone."""
    used = [task_data.usable_split(packed, name, force) for name in names]
    return task_data.unused_val(packed, names, used)


def test_val_is_unused_where_a_run_neither_trains_on_it_nor_scores_it(tmp_path: Path) -> None:
    packed = PackedTask.open(small_task(), write_task(tmp_path))
    val = unused_val(packed, "train", "test")
    assert val is not None
    assert list(val.ids) == ids_of("val")
    for names in (("train+val", "test"), ("train", "val"), ("val", "test")):
        assert unused_val(packed, *names) is None
    splits = {"train": len(LABELS["train"]), "test": len(LABELS["test"])}
    without = PackedTask.open(small_task(splits=splits, ids_digest=None), tmp_path)
    assert unused_val(without, "train", "test") is None


def test_a_val_that_is_not_what_it_should_be_hinders_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_task(tmp_path)
    write_part(tmp_path, "val", [0, 1, 1], [*ids_of("val"), "one more"], UPSTREAM)
    packed = PackedTask.open(small_task(ids_digest=None), tmp_path)
    assert unused_val(packed, "train", "test") is None
    assert "The val split is not scored: " in caplog.text
    assert "has 3 images; 2 are expected" in caplog.text
    caplog.clear()
    (tmp_path / "val" / "labels.npy").write_bytes(b"")
    packed = PackedTask.open(small_task(ids_digest=None), tmp_path)
    assert unused_val(packed, "train", "test") is None
    assert "labels.npy cannot be read" in caplog.text


def test_what_a_user_forced_is_no_reason_against_val(tmp_path: Path) -> None:
    """That other images were chosen is as true of train."""
    packed = PackedTask.open(small_task(ids_digest="0123456789abcdef"), write_task(tmp_path))
    val = unused_val(packed, "train", "test", force=True)
    assert val is not None
    assert "other images were chosen" in val.problems[0]


def test_a_layout_that_a_task_does_not_have_is_refused(tmp_path: Path) -> None:
    write_part(tmp_path, "test", LABELS["test"], ids_of("test"), UPSTREAM | {"layout": "official"})
    message = "vtab/cifar has no test in the layout official. Prepare it again"
    with pytest.raises(DataError, match=message):
        PackedTask.open(small_task(), tmp_path).load_part("test")


@pytest.mark.parametrize(
    ("part", "labels", "ids", "names", "problem"),
    [
        ("test", [0, 1, 1], "abc", [], "has no images of 1 of 3 classes; at most 0"),
        ("train", [2, 2, 2, 2, 2], "abcde", [], "has no images of 2 of 3 classes; at most 1"),
        ("train", [0, 1, 1, 1, 1], "abcda", [], "has 1 images twice"),
        ("train", [0, 1, 1, 1], "abcd", [], "has 4 images; 5 are expected"),
        ("test", [0, 1, 2], "abc", ["a", "x", "c"], "names class 'x' where vtab/cifar has 'b'"),
        ("test", [0, 1, 2], "abc", ["a", "b"], "names 2 classes, vtab/cifar has 3"),
        ("train", [0, 1, 1, 1, 1], "abcde", ["0", "1", "2"], ""),
        ("val", [2, 2], "ab", ["a", "b", "c"], ""),
    ],
)
def test_what_is_not_the_benchmark_is_a_problem(
    part: str, labels: list[int], ids: str, names: list[str], problem: str, tmp_path: Path
) -> None:
    write_part(tmp_path, part, labels, list(ids), UPSTREAM | {"names": names})
    problems = PackedTask.open(small_task(), tmp_path).load_part(part).problems
    assert len(problems) == bool(problem)
    assert all(problem in found for found in problems)


def test_not_every_task_needs_images_of_all_classes(tmp_path: Path) -> None:
    write_part(tmp_path, "test", [0, 1, 1], list("abc"), UPSTREAM)
    task = small_task(covers_all_classes=False)
    assert PackedTask.open(task, tmp_path).load_part("test").problems == ()
    assert PackedTask.open(small_task(), tmp_path).load_part("test").problems != ()
    task = small_task(covers_all_classes=False, test_classes=1)
    problems = PackedTask.open(task, tmp_path).load_part("test").problems
    assert len(problems) == 1
    assert "has images of 2 classes; 1 are expected" in problems[0]


def test_verify_goes_on_after_a_damaged_split(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    assert all(finding.good for finding in verify(small_task(), folder))
    (folder / "train/manifest.json").write_text("{")
    write_part(folder, "test", LABELS["test"], ["val-0", "b", "c"], UPSTREAM)
    findings = verify(small_task(), folder)
    wrong = [finding.text for finding in findings if finding.good is False]
    assert len(wrong) == 2
    assert "holds no packed split of version 2" in wrong[0]
    assert wrong[1] == "val and test share 1 images: val-0"
    assert [finding.text[:5] for finding in findings if finding.good] == ["val: ", "test:"]
