"""What is wrong with packed data is found."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
import pytest
from small_tasks import DTD, LISTS, VTAB, packed, small

from san.data import pack, verify
from san.data.prepare import download
from san.data.split import read_split


def test_verify_finds_what_is_wrong(tmp_path: Path) -> None:
    home = packed(*DTD, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
    assert all(f.good is not False for f in verify.verify(DTD[1], home))
    images = np.load(home / "test/images.npy")
    images[0] ^= 1
    times = (home / "test/images.npy").stat()
    np.save(home / "test/images.npy", images)
    os.utime(home / "test/images.npy", ns=(times.st_atime_ns, times.st_mtime_ns))
    read_split(home / "test", 6, 47)  # looks untouched, so a run would take it
    wrong = [f.text for f in verify.verify(DTD[1], home) if f.good is False]
    assert len(wrong) == 1
    assert "does not match its manifest's digests" in wrong[0]


def test_verify_proves_membership_by_ids(tmp_path: Path) -> None:
    _, task = small(VTAB.task("cifar"), train=2, val=1, test=1)
    ids = {"train": ["train_16399", "train_01680"], "val": ["train_13431"], "test": ["test_0"]}
    task = replace(task, ids_digest=pack.ids_digest([*ids["train"], *ids["val"]]))
    home = tmp_path / "vtab/cifar/native"
    for part, names in ids.items():
        rows = ((name, 0, np.zeros((32, 32, 3), np.uint8)) for name in names)
        pack.write_split(home / part, rows, {"made_by": "TFDS", "ids": "upstream"})
    assert verify.membership(task, home).good is True
    other = replace(task, ids_digest="0" * 16)
    assert verify.membership(other, home).good is False
    twice = ((name, 0, np.zeros((32, 32, 3), np.uint8)) for name in ["train_16399"])
    pack.write_split(home / "test", twice, {"made_by": "TFDS", "ids": "upstream"})
    assert [f.text for f in verify.verify(task, home) if f.good is False] == [
        "test and train share 1 images"
    ]


def test_splits_of_two_sources_do_not_go_together(tmp_path: Path) -> None:
    suite, task = DTD
    home = packed(suite, task, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
    rows = ((f"x{i}", i, np.zeros((8, 8, 3), np.uint8)) for i in range(8))
    pack.write_split(home / "train", rows, {"made_by": "TFDS", "builder": "dtd/3.0.1"})
    with pytest.raises(
        ValueError, match="mixes sources: train from TFDS dtd/3.0.1, val from vtab-1k folder"
    ):
        verify.check_single_source(task, home)
    assert any("mixes sources" in f.text for f in verify.verify(task, home) if f.good is False)
    assert not download.is_complete(task, home)
    packed(suite, task, tmp_path / "dtd", tmp_path / "data")  # from one of them again
    assert download.is_complete(task, home)


def test_a_benchmark_cannot_lack_classes_nor_have_images_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "UNBALANCED", ("folder",))
    suite, task = small(VTAB.task("kitti"), train=8, val=4, test=6)
    folder = pictures.vtab_lists(tmp_path / "kitti", LISTS, 4)
    home = packed(suite, task, folder, tmp_path / "data")
    assert all(
        verify.load_part(task, home, part).problems == () for part in ("train", "val", "test")
    )
    lines = [f"images/train800/{i:06d}.jpg 0\n" for i in range(7)]
    (folder / "train800.txt").write_text("".join([*lines, lines[0]]))
    (folder / "test.txt").write_text(
        "".join(f"images/test/{i:06d}.jpg {i % 3}\n" for i in range(6))
    )
    home = packed(suite, task, folder, tmp_path / "data")
    problems = verify.load_part(task, home, "train").problems
    assert "has no images of 3 of 4 classes; at most 2 may be absent" in problems[0]
    assert "has 1 images twice" in problems[1]
    assert (
        "no images of 1 of 4 classes; at most 0" in verify.load_part(task, home, "test").problems[0]
    )


def test_verify_goes_on_whatever_is_damaged(tmp_path: Path) -> None:
    home = packed(*DTD, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
    np.save(home / "train/labels.npy", np.zeros(8))
    (home / "val/ids.json").write_text("5")
    np.save(home / "test/images.npy", np.load(home / "test/images.npy").transpose(0, 3, 1, 2))
    wrong = [f.text for f in verify.verify(DTD[1], home) if f.good is False]
    assert len(wrong) == 3
    assert "labels float64" in wrong[0]
    assert "is no list of names" in wrong[1]
    assert "images uint8 (6, 3, 8, 8)" in wrong[2]
    (home / "train/manifest.json").write_text('{"version": 2}')
    assert "no packed split of version 2" in verify.verify(DTD[1], home)[0].text
