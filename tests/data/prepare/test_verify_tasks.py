"""What is wrong with packed data is found, and said."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
import pytest
from small_tasks import DTD, LISTS, VTAB, SmallTask

from san.data.pack import ids_digest, write_split
from san.data.packed_task import PackedTask
from san.data.prepare.steps import is_complete
from san.data.prepare.verify_tasks import Outcome, verify_tasks
from san.data.split import read_split
from san.data.verify import verify
from san.errors import DataError
from san.tasks import Task


def wrong(task: Task, folder: Path) -> list[str]:
    return [finding.text for finding in verify(task, folder) if finding.good is False]


def packed_dtd(tmp_path: Path) -> PackedTask:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    return DTD.pack(folder, tmp_path / "data")


def flip_a_pixel(path: Path) -> None:
    """Change an image, and set the file's time back."""
    images = np.load(path)
    images[0] ^= 1
    times = path.stat()
    np.save(path, images)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_time_that_was_set_back_hides_no_change(tmp_path: Path) -> None:
    packed = packed_dtd(tmp_path)
    assert wrong(DTD.task, packed.folder) == []
    flip_a_pixel(packed.folder / "test/images.npy")
    with pytest.raises(DataError, match="does not match its manifest's digests"):
        read_split(packed.folder / "test", 6, 47)


def test_a_copy_is_not_believed_to_be_proved(tmp_path: Path) -> None:
    packed = packed_dtd(tmp_path)
    assert wrong(DTD.task, packed.folder) == []
    copy = tmp_path / "copy"
    shutil.copytree(packed.folder / "test", copy)  # with all times that can be copied
    read_split(copy, 6, 47)
    flip_a_pixel(packed.folder / "test/images.npy")
    shutil.rmtree(copy)
    shutil.copytree(packed.folder / "test", copy)
    with pytest.raises(DataError, match="does not match its manifest's digests"):
        read_split(copy, 6, 47)


def test_verify_reads_pixels_that_are_said_to_be_proved(tmp_path: Path) -> None:
    packed = packed_dtd(tmp_path)
    path = packed.folder / "test/images.npy"
    flip_a_pixel(path)
    proof = packed.folder / "test/proved.json"
    stat = path.stat()
    files = [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]]
    proof.write_text(json.dumps(json.loads(proof.read_text()) | {"files": files}))
    read_split(packed.folder / "test", 6, 47)  # a run would take it
    (text,) = wrong(DTD.task, packed.folder)
    assert "does not match its manifest's digests" in text


def test_splits_of_two_sources_do_not_go_together(tmp_path: Path) -> None:
    packed = packed_dtd(tmp_path)
    rows = ((f"x{i}", i, np.zeros((8, 8, 3), np.uint8)) for i in range(8))
    write_split(packed.folder / "train", rows, {"made_by": "TFDS", "builder": "dtd/3.0.1"})
    mixed = DTD.open(tmp_path / "data")
    message = "mixes sources: train from TFDS dtd/3.0.1, val from vtab-1k folder"
    with pytest.raises(DataError, match=message):
        mixed.check_single_source()
    assert any(message in text for text in wrong(DTD.task, packed.folder))
    assert not is_complete(DTD.task, packed.folder)
    DTD.pack(tmp_path / "dtd", tmp_path / "data")  # from one of them again
    assert is_complete(DTD.task, packed.folder)


def test_a_benchmark_cannot_lack_classes_nor_have_images_twice(tmp_path: Path) -> None:
    task = replace(VTAB.task("kitti"), splits={"train": 8, "val": 4, "test": 6})
    kitti = SmallTask(VTAB, task)  # whose images have to show all classes
    folder = pictures.vtab_lists(tmp_path / "kitti", LISTS, 4)
    packed = kitti.pack(folder, tmp_path / "data")
    assert [packed.load_part(part).problems for part in task.splits] == [(), (), ()]

    first = "images/train800/000000.jpg 0\n"
    others = [f"images/train800/{i:06d}.jpg 0\n" for i in range(1, 7)]
    (folder / "train800.txt").write_text("".join([first, *others, first]))
    lines = [f"images/test/{i:06d}.jpg {i % 3}\n" for i in range(6)]
    (folder / "test.txt").write_text("".join(lines))
    packed = kitti.pack(folder, tmp_path / "data")
    missing, twice = packed.load_part("train").problems
    assert "has no images of 3 of 4 classes; at most 2 may be absent" in missing
    assert "has 1 images twice" in twice
    (missing,) = packed.load_part("test").problems
    assert "no images of 1 of 4 classes; at most 0" in missing


def test_verify_goes_on_whatever_is_damaged(tmp_path: Path) -> None:
    folder = packed_dtd(tmp_path).folder
    np.save(folder / "train/labels.npy", np.zeros(8))
    (folder / "val/ids.json").write_text("5")
    np.save(folder / "test/images.npy", np.load(folder / "test/images.npy").transpose(0, 3, 1, 2))
    labels, ids, images = wrong(DTD.task, folder)
    assert "labels float64" in labels
    assert "is not a list of names" in ids
    assert "images uint8 (6, 3, 8, 8)" in images
    (folder / "train/manifest.json").write_text('{"version": 2}')
    assert "no packed split of version 2" in wrong(DTD.task, folder)[0]


def cifar_of_ids(root: Path) -> Task:
    """VTAB's cifar with four images, whose ids are those that it asks for."""
    ids = {"train": ["train_16399", "train_01680"], "val": ["train_13431"], "test": ["test_0"]}
    for part, names in ids.items():
        rows = ((name, 0, np.zeros((32, 32, 3), np.uint8)) for name in names)
        folder = root / "small/cifar/native" / part
        write_split(folder, rows, {"made_by": "TFDS", "ids": "upstream"})
    return replace(
        VTAB.task("cifar"),
        suite="small",
        covers_all_classes=False,
        splits={part: len(names) for part, names in ids.items()},
        ids_digest=ids_digest([*ids["train"], *ids["val"]]),
    )


def test_images_in_two_splits_are_found(tmp_path: Path) -> None:
    task = cifar_of_ids(tmp_path)
    folder = tmp_path / "small/cifar/native"
    assert wrong(task, folder) == []
    rows = [("train_16399", 0, np.zeros((32, 32, 3), np.uint8))]
    write_split(folder / "test", rows, {"made_by": "TFDS", "ids": "upstream"})
    assert wrong(task, folder) == ["train and test share 1 images: train_16399"]


def test_the_summary_counts_what_is_wrong_and_what_is_verified(tmp_path: Path) -> None:
    root = tmp_path / "data"
    cifar = cifar_of_ids(root)
    packed_dtd(tmp_path)
    said: list[str] = []
    tasks = [cifar, DTD.task, VTAB.task("svhn")]
    summary = verify_tasks(tasks, root, tmp_path / "figures", said.append)
    assert summary.outcomes == {Outcome.VERIFIED: 1, Outcome.GOOD: 1}
    assert summary.is_good
    expected = f"2 of 3 tasks are packed below {root}: 0 wrong, 1 verified by their ids."
    assert str(summary) == expected
    assert "small/cifar (native)" in said
    assert any(line.startswith("  ok    the ids of train and val are") for line in said)
    assert "vtab/svhn: not packed" in said
    for name in ("cifar", "dtd"):
        assert f"  {tmp_path / 'figures' / name}.png" in said
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 500


def test_the_summary_of_other_ids_and_of_nothing_is_not_good(tmp_path: Path) -> None:
    task = replace(cifar_of_ids(tmp_path), ids_digest="0" * 16)
    said: list[str] = []
    summary = verify_tasks([task], tmp_path, tmp_path / "figures", said.append)
    assert summary.outcomes == {Outcome.WRONG: 1}
    assert not summary.is_good
    assert said[-1] == "  no contact sheet of data that is wrong"
    assert any(line.startswith("  WRONG the ids of train and val give") for line in said)
    assert not verify_tasks([VTAB.task("svhn")], tmp_path, None, said.append).is_good
