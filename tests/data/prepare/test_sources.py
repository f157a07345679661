"""Each layout of images is read as it is, and what is wrong with it is named."""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pictures
import pytest
from PIL import Image

from san.data import pack, task_data, verify
from san.data.layout import packed_dir
from san.data.prepare import download, labels
from san.data.prepare.card import class_names, task_card
from san.data.prepare.contact_sheet import draw_sheet
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import find_source, folders, tfds
from san.data.prepare.sources.files import inside, open_root
from san.data.split import read_split
from san.tasks import Suite, Task, load_suite, select_tasks

VTAB, FGVC, GIC = (load_suite(name) for name in ("vtab", "fgvc", "gic"))
ROOT = Path(__file__).parents[3]
LISTS = {"train800": 8, "val200": 4, "test": 6}


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small tasks of these tests need not have images of all classes."""
    monkeypatch.setattr(verify, "UNBALANCED", ("vtab", "fgvc", "gic", "robustness", "folder"))


def small(task: Task, **sizes: int) -> tuple[Suite, Task]:
    """The task with fewer images, in a suite of its own."""
    task = replace(task, splits=sizes)
    return replace(VTAB, name=task.suite, tasks={task.name: task}), task


def packed(suite: Suite, task: Task, path: Path, root: Path, force: bool = False) -> Path:
    pack_splits(
        suite, task, find_source(task, path), root, "vtab", 8, force, lambda examples, *_: examples
    )
    return packed_dir(task, root, "vtab", 8)


DTD = small(VTAB.task("dtd"), train=8, val=4, test=6)


@pytest.mark.parametrize("kind", ["task folder", "suite folder", "zip"])
def test_the_vtab_1k_folder(kind: str, tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "vtab-1k" / "dtd", LISTS, 47)
    path = {"task folder": folder, "suite folder": tmp_path, "zip": tmp_path / "v.zip"}[kind]
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "v"), "zip", tmp_path, "vtab-1k")
    home = packed(*DTD, path, tmp_path / "data")
    split = verify.load_part(DTD[1], home, "test")
    assert split.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert split.ids[5] == "images/test/000005.jpg"
    assert split.made_by == "vtab-1k folder"
    assert split.image(0).shape == (8, 8, 3)
    assert verify.membership(DTD[1], home).good is None


def test_other_names_of_a_task_are_found(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "pets", LISTS, 37)
    suite, task = small(VTAB.task("oxford_iiit_pet"), train=8, val=4, test=6)
    assert len(verify.load_part(task, packed(suite, task, tmp_path, tmp_path / "data"), "val")) == 4


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: write(f / "test.txt", "images/test/000000.jpg\n"), "test.txt .*, line 1: .*allowed: PATH LABEL"),
        (lambda f: write(f / "test.txt", "images/test/9.jpg 1\n" * 6), "test.txt names 6 files .*does not have: images/test/9.jpg"),
        (lambda f: write(f / "test.txt", "../../secret.jpg 1\n" * 6), r"'\.\./\.\./secret.jpg' points out of"),
        (lambda f: write(f / "test.txt", "/etc/passwd 1\n" * 6), "'/etc/passwd' points out of"),
        (lambda f: write(f / "test.txt", "images/test/000000.jpg 47\n" * 6), r"has label 47; 0\.\.46 are allowed"),
        (lambda f: write(f / "test.txt", "images/test/000000.jpg 1\n"), "test has 1 images; 6 are expected"),
        (lambda f: write(f / "images/test/000003.jpg", "no image"), "Image images/test/000003.jpg of vtab/dtd cannot be decoded"),
        (lambda f: (f / "val200.txt").unlink(), "val200.txt of .* cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_list_is_named_and_leaves_no_split(
    spoil: Any, message: str, tmp_path: Path
) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        packed(*DTD, folder, tmp_path / "data")
    assert not (tmp_path / "data/vtab/dtd/vtab-8/test").exists()
    assert not list((tmp_path / "data").rglob(".*"))


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


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "v" / "dtd", LISTS, 47)
    shutil.make_archive(str(tmp_path / "v"), "zip", tmp_path / "v")
    (tmp_path / "v.zip").write_bytes((tmp_path / "v.zip").read_bytes()[:3000])
    with pytest.raises(ValueError, match="v.zip is no folder and no whole zip file"):
        find_source(DTD[1], tmp_path / "v.zip")


def test_a_zip_that_would_climb_out_is_read_in_place(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../escaped.txt", "x")
        for name, count in LISTS.items():
            archive.writestr(f"dtd/{name}.txt", "../../escaped.txt 0\n" * count)
    with pytest.raises(ValueError, match="points out of"):
        find_source(DTD[1], tmp_path / "evil.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.zip"]


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


CUB = small(FGVC.task("cub"), train=4, val=2, test=3)
JSON = {
    "train": {"b/1.jpg": 17, "b/2.jpg": 3, "c/1.jpg": 40, "c/2.jpg": 17},
    "val": {"v/1.jpg": 3, "v/2.jpg": 40},
    "test": {"t/1.jpg": 25, "t/2.jpg": 3, "t/3.jpg": 17},
}


@pytest.mark.parametrize("place", ["", "images", "CUB_200_2011/images"])
def test_vpt_json_labels_are_ranked_over_all_splits(place: str, tmp_path: Path) -> None:
    pictures.vpt_json(tmp_path / "cub", JSON, place)
    home = packed(*CUB, tmp_path, tmp_path / "data")
    assert home.name == "encoded"
    labelled = {part: verify.load_part(CUB[1], home, part) for part in JSON}
    assert labelled["train"].labels.tolist() == [1, 0, 3, 1]
    assert labelled["test"].labels.tolist() == [
        2,
        0,
        1,
    ]  # 25 is in no other split, and shifts nothing
    assert labelled["val"].ids == ["v/1.jpg", "v/2.jpg"]
    original = (tmp_path / "cub" / place / "t/2.jpg").read_bytes()
    assert original in (home / "test" / "images.npy").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": {"v/1.jpg": "three"}}, "mix kinds of class values"),
        ({"val": ["v/1.jpg"]}, "val.json .* is no map"),
        ({"val": {"v/1.jpg": [1]}}, "val.json .* is no map"),
        ({"val": {}}, "val.json .* is no map .*it is empty"),
        ({"val": {"v/9.jpg": 3, "v/1.jpg": 3}}, "names? v/9.jpg, but it is not there: put the images so that"),
        ({"val": {"../v.jpg": 3, "v/1.jpg": 3}}, "points out of"),
        ({"train": {"x/1.jpg": 3, "b/2.jpg": 3, "c/1.jpg": 3, "c/2.jpg": 3}}, "names? x/1.jpg, but it is not there: put the images so that"),
    ],
)  # fmt: skip
def test_damaged_json_splits_are_named(
    change: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    folder = pictures.vpt_json(tmp_path, JSON)
    for name, entries in change.items():
        (folder / f"{name}.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        packed(*CUB, folder, tmp_path / "data")


def test_a_map_says_where_images_lie_that_are_elsewhere(tmp_path: Path) -> None:
    pictures.vpt_json(tmp_path, JSON, "elsewhere")
    with pytest.raises(ValueError, match="or map it in paths.json"):
        find_source(CUB[1], tmp_path)
    shutil.move(tmp_path / "elsewhere/t/2.jpg", tmp_path / "single.jpg")
    starts = {start: f"elsewhere/{start}" for start in ("b/", "c/", "v/", "t/")}
    (tmp_path / "paths.json").write_text(json.dumps({**starts, "t/2.jpg": "single.jpg"}))
    source = find_source(CUB[1], tmp_path)
    wanted = [
        (tmp_path / path).read_bytes()
        for path in ("elsewhere/t/1.jpg", "single.jpg", "elsewhere/t/3.jpg")
    ]
    assert [image for _, _, image in source.examples("test")] == wanted
    (tmp_path / "paths.json").write_text("[1]")
    with pytest.raises(ValueError, match="paths.json of .* is no map from paths to paths"):
        find_source(CUB[1], tmp_path)


def birds(folder: Path) -> Path:
    rows = [
        ("11", "a/1.jpg", "5", "1"),
        ("12", "a/2.jpg", "9", "0"),
        ("13", "b/1.jpg", "7", "1"),
        ("14", "b/2.jpg", "5", "0"),
    ]
    for name, column in (
        ("images.txt", 1),
        ("image_class_labels.txt", 2),
        ("train_test_split.txt", 3),
    ):
        (folder / name).write_text("".join(f"{row[0]} {row[column]}\n" for row in rows))
    (folder / "classes.txt").write_text("5 Raven\n7 Crow\n9 Black-footed Albatross\n")
    for i, row in enumerate(rows):
        pictures.save(folder / "images" / row[1], i, i)
    return folder


def test_the_official_bird_layout_has_no_val_and_says_so(tmp_path: Path) -> None:
    suite, task = small(FGVC.task("nabirds"), train=1, val=1, test=2)
    task = replace(task, official_splits={"train": 2, "test": 2}, classes=("0", "1", "2"))
    home = packed(suite, task, birds(tmp_path), tmp_path / "data")
    assert verify.parts_of(task, home, "train+val") == ["train"]
    split = verify.load_part(task, home, "train")
    assert (split.labels.tolist(), split.made_by, split.problems) == (
        [0, 1],
        "CUB-style lists, official split",
        (),
    )
    assert verify.load_part(task, home, "test").labels.tolist() == [2, 0]
    with pytest.raises(
        LookupError, match="official layout, which has no val; allowed: train, test"
    ):
        verify.parts_of(task, home, "val")
    (tmp_path / "image_class_labels.txt").write_text("11 5\n")
    with pytest.raises(ValueError, match="do not name the same images: 4, 1, 4"):
        find_source(task, tmp_path)


def test_class_folders_as_imagenet_has_them(tmp_path: Path) -> None:
    suite, task = small(GIC.task("imagenet"), train=3, test=2)
    for i, name in enumerate(("n01440764", "n01443537", "n15075141")):
        pictures.save(tmp_path / "train" / name / "x.JPEG", i, i)
    for i, name in enumerate(("n01440764", "n15075141")):
        pictures.save(tmp_path / "val" / name / "y.JPEG", i, i)
    home = packed(suite, task, tmp_path, tmp_path / "data")
    assert verify.load_part(task, home, "train").labels.tolist() == [0, 1, 999]
    assert verify.load_part(task, home, "test").labels.tolist() == [0, 999]
    pictures.save(tmp_path / "val" / "n00000000" / "y.JPEG", 0, 0)
    with pytest.raises(
        ValueError, match=r"folders that are no class of gic/imagenet: \['n00000000'\]"
    ):
        find_source(task, tmp_path)


def test_robustness_sets_are_test_images_of_imagenet_classes(tmp_path: Path) -> None:
    robust = load_suite("robustness")
    suite, task = small(robust.task("imagenet_a"), test=2)
    for i, name in enumerate(("n01498041", "n15075141")):
        pictures.save(tmp_path / "a" / name / "z.jpg", i, i)
    assert verify.load_part(
        task, packed(suite, task, tmp_path / "a", tmp_path / "d"), "test"
    ).labels.tolist() == [
        6,
        999,
    ]
    suite, task = small(robust.task("imagenet_c_frost"), test=5)
    for severity in range(1, 6):
        pictures.save(tmp_path / "c" / "frost" / str(severity) / "n01440764" / "z.jpg", 0, severity)
    home = packed(suite, task, tmp_path / "c", tmp_path / "d")
    ids = verify.load_part(task, home, "test").ids
    assert ids == [f"frost/{severity}/n01440764/z.jpg" for severity in range(1, 6)]


def test_a_user_s_own_folder(tmp_path: Path) -> None:
    for label, name in enumerate(("ants", "bees", "cats")):
        for i in range(60):
            pictures.save(tmp_path / name / f"{i}.png", label, i)
    flat = folders.own_folder(tmp_path)
    assert flat.names == ["ants", "bees", "cats"]
    sizes = {part: flat.count(part) for part in flat.parts}
    assert sum(sizes.values()) == 180
    assert 20 < sizes["test"] < 55
    assert 8 < sizes["val"] < 32
    shutil.move(tmp_path / "ants", tmp_path / "test" / "ants")
    for name in ("bees", "cats", "ants"):
        (tmp_path / "train").mkdir(exist_ok=True)
        shutil.copytree(tmp_path / "test" / "ants", tmp_path / "train" / name)
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    given = folders.own_folder(tmp_path)
    assert given.count("test") == 60
    assert given.count("train") + given.count("val") == 180
    pictures.save(tmp_path / "test" / "wasps" / "1.png", 0, 0)
    with pytest.raises(ValueError, match=r"classes that .*train has not: \['wasps'\]"):
        folders.own_folder(tmp_path)
    with pytest.raises(ValueError, match="has 0 class folders"):
        folders.own_folder(tmp_path / "train" / "bees")


def own(folder: Path, *names: str, count: int = 40) -> Path:
    for name in names:
        for i in range(count):
            pictures.save(folder / name / f"{i}.png", len(name), i)
    return folder


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (["Train/a", "Train/b", "Test/a", "Test/b"], {"test": 80}),
        (["training/a", "training/b", "testing/a"], {"test": 40}),
        (
            ["train/a", "train/b", "valid/a", "valid/b", "test/a", "test/b"],
            {"train": 80, "val": 80, "test": 80},
        ),
        (["train/a", "train/b", "validation/a", "validation/b"], {"test": 80}),
    ],
)
def test_split_folders_go_by_their_usual_names(
    names: list[str], sizes: dict[str, int], tmp_path: Path
) -> None:
    found = folders.own_folder(own(tmp_path, *names))
    assert found.names == ["a", "b"]
    assert {part: found.count(part) for part in sizes} == sizes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/a", "train/b", "val/a", "valid/a"],
            "has val and valid; one folder for val is allowed",
        ),
        (["train/a", "train/b", "more/a"], "has more beside train; only val and test may be there"),
        (["a", "b", "c/.hidden"], "has no images of c"),
        (["a", "b/.hidden", "c/.hidden"], "has no images of b, c"),
    ],
)
def test_folders_that_could_mean_two_things_are_refused(
    names: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        folders.own_folder(own(tmp_path, *names))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert folders.own_folder(own(tmp_path, "train", "bus", "car")).names == ["bus", "car", "train"]


def test_a_link_that_loops_is_refused(tmp_path: Path) -> None:
    own(tmp_path, "a", "b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is a link to a folder above it"):
        folders.own_folder(tmp_path)


def test_files_that_are_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own(tmp_path, "a", "b")
    for name in ("a/1.heic", "a/2.heic", "b/notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        task_data.folder_suite(str(tmp_path))
    assert "2 classes (a, b ...); images: train" in caplog.text
    assert "left out, as they are no images that are read: {'.heic': 2, '.txt': 1}" in caplog.text


def test_nothing_there_lists_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match="Nothing of vtab/dtd is at(.|\n)*train800.txt(.|\n)*TFDS data folder",
    ):
        find_source(DTD[1], tmp_path)
    with pytest.raises(
        FileNotFoundError, match="does not exist; a folder or a .zip file is allowed"
    ):
        open_root(tmp_path / "nix")
    for name in ("a/../../b", "a\\..\\..\\b", "C:\\b", "/b"):
        with pytest.raises(ValueError, match="points out of"):
            inside(tmp_path, name)
    assert inside(tmp_path, "a/2020:01.png") == tmp_path / "a" / "2020:01.png"


def brute_interval(value: float, thresholds: list[float]) -> int:
    return max(i for i, t in enumerate(thresholds) if np.float32(t) < np.float32(value))


def test_label_rules_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        count = rng.integers(3, 11)
        depths = rng.uniform(7, 11, count).astype(np.float32)
        depths[0] = rng.choice([8.0, 8.5, 9.0, 9.5, 10.0, depths[0]])
        clevr = {"objects": {"pixel_coords": [[0, 0, d] for d in depths]}}
        assert labels.label_of(clevr, "clevr_count") == count - 3
        assert labels.label_of(clevr, "clevr_distance") == brute_interval(
            min(depths), [0, 8, 8.5, 9, 9.5, 10, 100]
        )
        boxes = rng.integers(0, 5)
        kinds = rng.integers(0, 8, boxes)
        z = rng.choice([8.0, 20.0, *rng.uniform(-5, 90, 3)], boxes)
        kitti = {"objects": {"type": list(kinds), "location": [[0, 0, v] for v in z]}}
        near = min([v for k, v in zip(kinds, z, strict=True) if k < 3], default=1000)
        assert labels.label_of(kitti, "kitti_distance") == brute_interval(near, [-100, 8, 20, 999])
    for x in range(32):
        assert labels.label_of({"label_x_position": x}, "dsprites_x") == int(
            np.floor(np.float32(x) / np.float32(2))
        )
    sizes = np.bincount(
        [labels.label_of({"label_orientation": o}, "dsprites_orientation") for o in range(40)]
    )
    assert sizes.tolist() == [3, 2] * 8
    assert labels.label_of({"label_azimuth": np.int64(7)}, "label_azimuth") == 7
    with pytest.raises(ValueError, match="not above 0.0"):
        labels.interval(0.0, labels.CLEVR_DEPTHS)


@pytest.mark.parametrize(
    ("expression", "count", "rows"),
    [
        ("test", 7, range(7)), ("train[:800]", 3060, range(800)), ("train[90%:+200]", 3060, range(2754, 2954)),
        ("train[90%:+200]", 73257, range(65931, 66131)), ("train[80%:+200]", 3680, range(2944, 3144)),
        ("train[60%:+200]", 27000, range(16200, 16400)), ("train[80%:]", 27000, range(21600, 27000)),
        ("test[50%:]", 24300, range(12150, 24300)), ("train[80%:+200]", 737280, range(589824, 590024)),
    ],
)  # fmt: skip
def test_slices_are_those_of_task_adaptation(expression: str, count: int, rows: range) -> None:
    assert tfds.interval(expression, count) == rows


def test_a_slice_past_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train\[:800\] asks for rows 0 to 800 of 500"):
        tfds.interval("train[:800]", 500)


def test_tfrecord_framing(tmp_path: Path) -> None:
    records = [b"one", b"", b"three" * 1000]
    framed = b"".join(struct.pack("<Q", len(r)) + b"1234" + r + b"5678" for r in records)
    (tmp_path / "r").write_bytes(framed)
    assert list(tfds.framed(tmp_path / "r")) == records
    for cut in (1, 5, 13, len(framed) - 2):
        (tmp_path / "r").write_bytes(framed[:cut])
        with pytest.raises(ValueError, match="is truncated"):
            list(tfds.framed(tmp_path / "r"))


def test_the_newest_readable_copy_is_taken(tmp_path: Path) -> None:
    task = VTAB.task("dsprites_loc")
    for version in ("1.0.0", "2.0.0", "2.1.0", "2.2.0", "3.0.0"):
        (tmp_path / "dsprites" / version).mkdir(parents=True)
        (tmp_path / "dsprites" / version / "dataset_info.json").touch()
    assert [p.name for p in tfds.copies(task, tmp_path)] == [
        "2.0.0",
        "2.2.0",
        "2.1.0",
    ]  # the row asks for 2.1.0
    assert tfds.copies(VTAB.task("kitti"), tmp_path) == []


def test_the_plan_says_what_is_there_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = download.Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual")
    pairs = select_tasks(["vtab", "fgvc/nabirds"])
    steps = download.plan(pairs, places, "vtab", 224)
    asked = {s.name: s.note for s in steps if s.action == "ask"}
    assert asked.keys() == {"vtab/resisc45", "vtab/diabetic_retinopathy", "fgvc/nabirds"}
    assert "NWPU-RESISC45" in asked["vtab/resisc45"]
    assert str(tmp_path / "manual" / "resisc45") in asked["vtab/resisc45"]
    fetched, copies, packed, unknown = download.needed_bytes(steps, 224)
    assert fetched == pytest.approx(85.8e9, rel=0.01)  # clevr, dsprites and smallnorb count once
    assert copies == pytest.approx(3 * fetched)
    assert 15e9 < packed < 40e9
    assert unknown == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))
    line, room = download.check_disk(steps, places, 224)
    assert re.fullmatch(r"8\d\.\d GB to download, at most 2\d\d\.\d GB of disk, 1\.0 GB free", line)
    assert not room


def test_sizes_of_files_that_are_kept(tmp_path: Path) -> None:
    places = download.Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual", given=tmp_path)
    steps = download.plan(
        select_tasks(["gic/imagenet", "fgvc/nabirds", "robustness/imagenet_c_frost"]),
        places,
        None,
        224,
    )
    assert [s.resize for s in steps] == ["crop_248", "crop_256", "crop_248"]
    steps = [replace(s, action="pack") for s in steps]
    assert download.needed_bytes(steps, 224) == (
        0,
        0,
        145 * 10**9,
        ["fgvc/nabirds", "robustness/imagenet_c_frost"],
    )
    assert (
        "the files of fgvc/nabirds, robustness/imagenet_c_frost"
        in download.check_disk(steps, places, 224)[0]
    )
    (demo,) = download.plan(select_tasks(["demo/digits"]), places, None, 224)
    assert (demo.action, demo.note) == ("done", "is drawn where it is needed")


def test_a_build_that_fails_lists_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, root: Path, manual: Path) -> None:
        raise RuntimeError("Name or service not known\nand more")

    monkeypatch.setattr(tfds, "build", fail)
    monkeypatch.setattr(tfds, "file_names", lambda name: ["cars_train.tgz", "cars_test.tgz"])
    pairs = [(FGVC, FGVC.task("stanford_cars")), (FGVC, FGVC.task("nabirds"))]
    places = download.Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual")
    steps = download.plan(pairs, places, None, 224)
    errors = download.prepare_all(steps, places, 224, False, 1, lambda e, *_: e, print)
    assert len(errors) == 2
    for text in (
        "RuntimeError: Name or service",
        "a prepared copy",
        "TFDS's download of cars196",
        "put cars_train.tgz, cars_test.tgz",
        "--from",
    ):
        assert text in errors[0]
    assert "nabirds.tar.gz" in errors[1]


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


def test_cards_and_sheets(tmp_path: Path) -> None:
    home = packed(*DTD, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
    text = task_card(DTD[1], home)
    assert "train: 8 of 47 classes, 0 to 1 images a class; absent: crosshatched" in text
    assert "train+val: 8 of 47 classes" in text
    assert "| 0 | banded | 1 | 2 | 1 |" in text
    assert "first of the ten official folds" in text
    assert "Not packed here" in task_card(VTAB.task("sun397"), None)
    draw_sheet(
        DTD[1],
        class_names(DTD[1], home),
        verify.load_part(DTD[1], home, "train"),
        tmp_path / "sheet.png",
    )
    assert (tmp_path / "sheet.png").stat().st_size > 2000


def test_the_digest_of_dsprites_is_that_of_the_documented_order() -> None:
    """Ids are indices in six digits, in ascending md5 of `train` and index: all 737280 are known, so the digest is, too."""
    order = sorted(
        range(737280),
        key=lambda i: hashlib.md5(f"train{i}".encode(), usedforsecurity=False).digest(),
    )
    rows = [*order[:800], *order[589824:590024]]
    for name in ("dsprites_loc", "dsprites_ori"):
        assert VTAB.task(name).ids_digest == pack.ids_digest([f"{i:06d}" for i in rows])
    assert pack.ids_digest([str(i) for i in rows]) == "9201b9066b1d4e5a"


@pytest.mark.parametrize(("name", "count", "digits"), [("cifar", 50000, 5), ("svhn", 73257, 6)])
def test_the_digests_of_index_keyed_sets_follow_from_their_size(
    name: str, count: int, digits: int
) -> None:
    order = sorted(
        range(count),
        key=lambda i: hashlib.md5(f"train{i}".encode(), usedforsecurity=False).digest(),
    )
    splits = VTAB.task(name).tfds.splits
    rows = [order[i] for part in ("train", "val") for i in tfds.interval(splits[part], count)]
    assert VTAB.task(name).ids_digest == pack.ids_digest([f"train_{i:0{digits}d}" for i in rows])


def test_every_row_is_whole() -> None:
    tasks = [
        task
        for name in ("vtab", "fgvc", "gic", "robustness")
        for task in load_suite(name).tasks.values()
    ]
    assert len(tasks) == 19 + 5 + 2 + 21
    assert sum(load_suite("vtab").task(name).splits["test"] for name in VTAB.tasks) == 387904
    assert sum(task.ids_digest is not None for task in VTAB.tasks.values()) == 12
    classes = [102, 100, 47, 102, 37, 10, 397, 2, 10, 45, 5, 8, 6, 6, 4, 16, 16, 18, 9]
    assert [len(task.classes) for task in VTAB.tasks.values()] == classes
    for task in tasks:
        assert task.tfds or task.how_to_get
        assert task.licence
        assert len(set(task.classes)) == len(task.classes) or task.suite == "gic"
        for expression in (task.tfds.splits if task.tfds else {}).values():
            assert tfds.SLICE.fullmatch(expression)


def test_two_processes_prepare_the_same_task(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(
        tmp_path / "kitti", {"train800": 800, "val200": 200, "test": 711}, 4
    )
    command = [
        sys.executable,
        str(ROOT / "scripts/prepare.py"),
        "vtab/kitti",
        "--from",
        str(folder),
        "--side",
        "16",
    ]
    both = [
        subprocess.Popen([*command, "--root", str(tmp_path / "data")], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [(p.communicate()[1].decode()[-500:], p.returncode)[1] for p in both] == [0, 0]
    home = tmp_path / "data/vtab/kitti/vtab-16"
    assert sorted(p.name for p in home.iterdir()) == ["test", "train", "val"]
    assert all(f.good is not False for f in verify.verify(VTAB.task("kitti"), home))


def test_killing_preparation_loses_only_the_split_in_flight(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(
        tmp_path / "kitti", {"train800": 800, "val200": 200, "test": 711}, 4, height=375, width=1242
    )
    command = [
        sys.executable,
        str(ROOT / "scripts/prepare.py"),
        "vtab/kitti",
        "--from",
        str(folder),
    ]
    command += ["--root", str(tmp_path / "data")]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    home = tmp_path / "data/vtab/kitti/vtab-224"
    deadline = time.monotonic() + 120
    while not (home / "train").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.wait()
    whole = sorted(p.name for p in home.iterdir() if not p.name.startswith("."))
    assert "train" in whole
    assert "test" not in whole
    stamp = (home / "train/manifest.json").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "train: there already" in again.stdout
    assert "test: 711 images" in again.stdout
    assert (home / "train/manifest.json").stat().st_mtime_ns == stamp
    assert sorted(p.name for p in home.iterdir()) == [
        "test",
        "train",
        "val",
    ]  # nothing of the killed one is left
    assert all(f.good is not False for f in verify.verify(VTAB.task("kitti"), home))


class FakeBuilder:
    """What TfdsCopy asks of TFDS's builder."""

    def __init__(self, splits: dict[str, int], **features: Any) -> None:
        sizes = {name: SimpleNamespace(num_examples=count) for name, count in splits.items()}
        kind = SimpleNamespace(value="array_record")
        self.info = SimpleNamespace(
            splits=sizes, features=features, full_name="fake/1.0.0", file_format=kind
        )
        self.data_path = "fake"


@pytest.mark.parametrize("name", ["cub", "stanford_dogs", "stanford_cars", "oxford_flowers"])
def test_fine_grained_sets_of_tfds_have_the_official_split(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = FGVC.task(name)
    splits = {"train": 4, "test": 3, "validation": 2}
    official = {"train": 4, "test": 3} if full.official_splits else None
    task = replace(full, splits={"train": 4, "val": 2, "test": 3}, official_splits=official)

    def records(builder: FakeBuilder, split: str, rows: range) -> Any:
        for row in rows:
            names = {key: f"{row}.jpg".encode() for key in ("id", "file_name", "image/filename")}
            yield {"label": row % 3, "image": pictures.png(row % 3, row), **names}

    monkeypatch.setattr(tfds, "array_records", records)
    keys = dict.fromkeys(("id", "file_name", "image/filename", "image", "label"))
    source = tfds.TfdsCopy(task, FakeBuilder(splits, **keys))
    suite = replace(FGVC, tasks={name: task})
    pack_splits(suite, task, source, tmp_path, "vtab", 8, False, lambda e, *_: e)
    home = packed_dir(task, tmp_path, "vtab", 8)
    found = [
        verify.load_part(task, home, part) for part in verify.parts_of(task, home, "train+val")
    ]
    assert sum(map(len, found)) == (4 if official else 6)
    assert all(part.problems == () for part in found)
    assert found[0].made_by == "TFDS fake/1.0.0" + (", official split" if official else "")
    if name == "stanford_cars":  # whose ids repeat between the splits
        assert found[0].ids[0] == "train/0.jpg"
        assert [f.text for f in verify.verify(task, home) if f.good is False] == []


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


def test_one_damaged_source_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(GIC, GIC.task("imagenet")), DTD]
    pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    places = download.Paths(
        tmp_path / "data", tmp_path / "tfds", tmp_path / "manual", given=tmp_path
    )
    find_it = download.find

    def broken(task: Task, path: Path) -> Any:
        if task.name == "imagenet":
            raise KeyError("a layout nobody thought of")
        return find_it(task, path)

    monkeypatch.setattr(download, "find", broken)
    said: list[str] = []
    steps = download.plan(pairs, places, None, 8)
    errors = download.prepare_all(steps, places, 8, False, 1, lambda e, *_: e, said.append)
    assert errors == ["gic/imagenet: KeyError: 'a layout nobody thought of'"]
    assert said == ["vtab/dtd: train: 8 images; val: 4 images; test: 6 images"]


def test_own_folders_of_one_name_are_two_tasks(tmp_path: Path) -> None:
    names = []
    for parent in ("one", "two"):
        for label in ("a", "b"):
            for i in range(30):
                pictures.save(tmp_path / parent / "pics" / label / f"{i}.png", 0, i)
        suite = task_data.folder_suite(str(tmp_path / parent / "pics"))
        names += suite.tasks
    assert len(set(names)) == 2
    assert all(name.startswith("pics-") for name in names)


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


def test_the_plan_of_what_is_given_says_what_is_not_there(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "vtab-1k" / "dtd", LISTS, 47)
    places = download.Paths(
        tmp_path, tmp_path / "tfds", tmp_path / "manual", given=tmp_path / "vtab-1k"
    )
    steps = download.plan(select_tasks(["vtab/dtd", "vtab/svhn"]), places, None, 224)
    assert [(s.action, s.name) for s in steps] == [("pack", "vtab/dtd"), ("ask", "vtab/svhn")]
    assert "nothing of it is at" in steps[1].note
    with pytest.raises(FileNotFoundError, match="does not exist"):
        download.plan(
            select_tasks(["vtab/dtd"]), replace(places, given=tmp_path / "nix"), None, 224
        )


def test_lists_as_editors_leave_them(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    text = (folder / "test.txt").read_text()
    (folder / "test.txt").write_bytes(
        b"\xef\xbb\xbf" + text.replace(" ", "\t").replace("\n", "\r\n").encode() + b"\n"
    )
    assert find_source(DTD[1], folder).count("test") == 6
    (folder / "test.txt").write_bytes(b"\x8c\xff\x00")
    with pytest.raises(ValueError, match="test.txt of .* is no text"):
        find_source(DTD[1], folder)


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(OSError, match="cannot be written .*Choose another data_root"):
        packed(*DTD, pictures.vtab_lists(tmp_path / "dtd", LISTS, 47), tmp_path / "data")
