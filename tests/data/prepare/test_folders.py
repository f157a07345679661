"""Folders of images, one a class: benchmarks' and users' own."""

import os
from pathlib import Path

import pictures
import pytest
from small_tasks import GIC, small

from san.data import task_data
from san.data.prepare.sources import find_source, folders
from san.errors import DataError
from san.tasks import load_suite


def test_class_folders_as_imagenet_has_them(tmp_path: Path) -> None:
    imagenet = small(GIC.task("imagenet"), train=3, test=2)
    for i, name in enumerate(("n01440764", "n01443537", "n15075141")):
        pictures.save(tmp_path / "train" / name / "x.JPEG", i, i)
    for i, name in enumerate(("n01440764", "n15075141")):
        pictures.save(tmp_path / "val" / name / "y.JPEG", i, 10 + i)
    packed = imagenet.pack(tmp_path, tmp_path / "data")
    assert packed.load_part("train").labels.tolist() == [0, 1, 999]
    assert packed.load_part("test").labels.tolist() == [0, 999]

    pictures.save(tmp_path / "val" / "n00000000" / "y.JPEG", 0, 0)
    message = r"folders that are not classes of small/imagenet: \['n00000000'\]"
    with pytest.raises(DataError, match=message):
        find_source(imagenet.task, tmp_path)


def test_imagenet_a_has_its_class_folders_at_the_top(tmp_path: Path) -> None:
    imagenet_a = small(load_suite("robustness").task("imagenet_a"), test=2)
    for i, name in enumerate(("n01498041", "n15075141")):
        pictures.save(tmp_path / "a" / name / "z.jpg", i, i)
    packed = imagenet_a.pack(tmp_path / "a", tmp_path / "data")
    assert packed.load_part("test").labels.tolist() == [6, 999]


def test_imagenet_c_has_five_severities_of_a_corruption(tmp_path: Path) -> None:
    frost = small(load_suite("robustness").task("imagenet_c_frost"), test=5)
    for severity in range(1, 6):
        folder = tmp_path / "c" / "frost" / str(severity)
        pictures.save(folder / "n01440764" / "z.jpg", 0, severity)
    packed = frost.pack(tmp_path / "c", tmp_path / "data")
    expected = [f"frost/{severity}/n01440764/z.jpg" for severity in range(1, 6)]
    assert packed.load_part("test").ids == expected


def fill(folder: Path, *names: str, count: int = 40) -> Path:
    """Save images in folders."""
    for name in names:
        for i in range(count):
            pictures.save(folder / name / f"{i}.png", len(name), i)
    return folder


def test_splits_that_a_user_does_not_have_are_drawn(tmp_path: Path) -> None:
    found = folders.own_folder(fill(tmp_path, "ants", "bees", "cats", count=60))
    assert found.names == ["ants", "bees", "cats"]
    sizes = {part: found.count(part) for part in found.parts}
    assert sum(sizes.values()) == 180
    assert 20 < sizes["test"] < 55
    assert 8 < sizes["val"] < 32
    again = folders.own_folder(tmp_path)
    assert again.files == found.files


def test_splits_that_a_user_has_are_kept(tmp_path: Path) -> None:
    fill(tmp_path, "train/ants", "train/bees", "test/ants", count=60)
    found = folders.own_folder(tmp_path)
    assert found.count("test") == 60
    assert found.count("train") + found.count("val") == 120
    assert found.count("val") > 0

    pictures.save(tmp_path / "test" / "wasps" / "1.png", 0, 0)
    with pytest.raises(DataError, match=r"classes that .*train does not have: \['wasps'\]"):
        folders.own_folder(tmp_path)


def test_a_folder_of_images_alone_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "ants")
    with pytest.raises(DataError, match="has 0 class folders"):
        folders.own_folder(tmp_path / "ants")


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
    found = folders.own_folder(fill(tmp_path, *names))
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
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        folders.own_folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    found = folders.own_folder(fill(tmp_path, "train", "bus", "car"))
    assert found.names == ["bus", "car", "train"]


def test_a_link_that_loops_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(DataError, match="is a link to a folder above it"):
        folders.own_folder(tmp_path)


def test_files_that_are_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, "a", "b")
    for name in ("a/1.heic", "a/2.heic", "b/notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        task_data.folder_suite(str(tmp_path))
    assert "2 classes (a, b ...); images: train" in caplog.text
    assert "left out, not images of a known format: {'.heic': 2, '.txt': 1}" in caplog.text


def test_own_folders_of_one_name_are_two_tasks(tmp_path: Path) -> None:
    names = []
    for parent in ("one", "two"):
        folder = fill(tmp_path / parent / "pics", "a", "b", count=30)
        names += task_data.folder_suite(str(folder)).tasks
    assert len(set(names)) == 2
    assert all(name.startswith("pics-") for name in names)


def test_the_drawn_split_is_of_the_bytes_of_a_path_in_every_locale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"bees/é{i}.png" for i in range(100)]
    drawn = [folders._drawn_split(name, given=()) for name in names]
    assert [drawn.count(part) for part in ("train", "val", "test")] == [67, 16, 17]
    assert folders._drawn_split("bees/\udcff.png", given=()) == "train"  # not UTF-8

    monkeypatch.setattr(os, "fsencode", lambda path: path.encode("latin-1"))
    by_latin_1 = [name.encode().decode("latin-1") for name in names]
    assert by_latin_1 != names
    assert [folders._drawn_split(name, given=()) for name in by_latin_1] == drawn
