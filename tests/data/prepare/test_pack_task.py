"""Images are packed as their task wants them, once, and damaged ones are named."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
import pytest
from PIL import Image
from small_tasks import DTD, GIC, LISTS, VTAB, packed, small

from san.data import verify
from san.data.layout import packed_dir
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import find_source
from san.tasks import load_suite


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47, height=60, width=60)
    path = folder / "images/val200/000001.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(
        ValueError, match="Image images/val200/000001.jpg of vtab/dtd cannot be decoded"
    ):
        packed(*DTD, folder, tmp_path / "data")
    done = sorted(p.name for p in (tmp_path / "data/vtab/dtd/vtab-8").iterdir())
    assert done == ["train"]  # whole, and kept: the next call goes on from there


def test_small_images_of_one_size_are_stored_natively_and_no_other_size_passes(
    tmp_path: Path,
) -> None:
    suite, task = small(VTAB.task("cifar"), train=8, val=4, test=6)
    good = pictures.vtab_lists(tmp_path / "good" / "cifar", LISTS, 100, height=32, width=32)
    home = packed(suite, task, good, tmp_path / "data")
    assert (home.name, verify.load_part(task, home, "train").image(0).shape) == (
        "native",
        (32, 32, 3),
    )
    bad = pictures.vtab_lists(tmp_path / "bad" / "cifar", LISTS, 100, height=32, width=31)
    with pytest.raises(
        ValueError,
        match="Image images/train800/000000.jpg of vtab/cifar is 32x31; 32x32 is expected",
    ):
        packed(suite, task, bad, tmp_path / "other")


def test_preparing_again_does_nothing_and_another_source_replaces(tmp_path: Path) -> None:
    one = pictures.vtab_lists(tmp_path / "one" / "dtd", LISTS, 47)
    suite, task = DTD
    say = []
    for _ in range(2):
        say.append(
            pack_splits(
                suite,
                task,
                find_source(task, one),
                tmp_path / "d",
                "vtab",
                8,
                False,
                lambda e, *_: e,
            )
        )
    assert say[0] == ["train: 8 images", "val: 4 images", "test: 6 images"]
    assert say[1] == ["train: there already", "val: there already", "test: there already"]
    images = tmp_path / "d" / "vtab/dtd/vtab-8/val/images.npy"
    images.write_bytes(images.read_bytes()[:-50])  # damage is mended
    mended = pack_splits(
        suite, task, find_source(task, one), tmp_path / "d", "vtab", 8, False, lambda e, *_: e
    )
    assert [line.partition(":")[2].split()[0] for line in mended] == ["there", "4", "there"]
    pictures.save(one / "images/test/000001.jpg", 9, 9)  # and a corrected image is taken
    corrected = pack_splits(
        suite, task, find_source(task, one), tmp_path / "d", "vtab", 8, False, lambda e, *_: e
    )
    assert corrected[2].startswith("test: 6 images")
    two = pictures.vtab_lists(tmp_path / "two" / "dtd", LISTS, 46)
    (two / "test.txt").write_text((two / "test.txt").read_text().replace(" 5\n", " 6\n"))
    last = pack_splits(
        suite, task, find_source(task, two), tmp_path / "d", "vtab", 8, False, lambda e, *_: e
    )
    assert last[2] == "test: 6 images instead of vtab-1k folder's"


def test_other_class_names_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            pictures.save(tmp_path / part / name / "x.jpg", 0, 0)
    suite, task = small(GIC.task("imagenet"), train=2, test=2)
    source = replace(
        find_source(task, tmp_path), names=["n01443537", "n01440764", *task.classes[2:]]
    )
    with pytest.raises(
        ValueError, match="names class 'n01443537' where gic/imagenet has 'n01440764' .2 differ"
    ):
        pack_splits(suite, task, source, tmp_path / "d", "vtab", 8, False, lambda e, *_: e)
    pack_splits(
        suite, task, source, tmp_path / "d", "vtab", 8, True, lambda e, *_: e
    )  # and stay a problem when forced
    split = verify.load_part(task, packed_dir(task, tmp_path / "d", "vtab", 8), "train")
    assert "names class 'n01443537' where gic/imagenet has 'n01440764'" in split.problems[0]


def test_preparing_a_paired_task_again_mends_the_shared_file(tmp_path: Path) -> None:
    suite = load_suite("vtab")
    tasks = [
        replace(suite.task(name), splits={"train": 8, "val": 4, "test": 6})
        for name in ("clevr_count", "clevr_dist")
    ]
    suite = replace(suite, tasks={task.name: task for task in tasks})
    for task in tasks:
        pictures.vtab_lists(tmp_path / task.name, LISTS, 6)
    homes = [packed(suite, task, tmp_path, tmp_path / "data") for task in tasks]
    files = [home / "train" / "images.npy" for home in homes]
    assert files[0].samefile(files[1])
    with files[0].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    shutil.rmtree(homes[0])
    packed(suite, tasks[0], tmp_path, tmp_path / "data")
    assert all(
        verify.load_part(task, home, "train") for task, home in zip(tasks, homes, strict=True)
    )
    assert files[0].samefile(files[1])


def test_images_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 150)
    deep.save(folder / "images/test/000000.jpg", "PNG")
    with pytest.raises(
        ValueError, match="000000.jpg of vtab/dtd cannot be decoded .its pixels are of mode I;16"
    ):
        packed(*DTD, folder, tmp_path / "data")


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(OSError, match="cannot be written .*Choose another data_root"):
        packed(*DTD, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
