"""A user's own images: which splits a folder has, and what of it is refused or said."""

import os
from collections import Counter
from pathlib import Path

import pictures
import pytest

from san.data import task_data
from san.data.prepare.sources.files import FileList
from san.data.prepare.sources.own_folder import read_own_folder
from san.errors import DataError, InvalidValueError


def fill(folder: Path, *names: str, count: int = 40) -> Path:
    """Save images in folders."""
    for name in names:
        for i in range(count):
            pictures.save(folder / name / f"{i}.png", len(name), i)
    return folder


def by_class(found: FileList, part: str) -> Counter[int]:
    return Counter(image.label for image in found.files[part])


def test_splits_that_a_user_does_not_have_are_drawn_from_each_class(tmp_path: Path) -> None:
    fill(tmp_path, "ants", "bees", count=60)
    found = read_own_folder(fill(tmp_path, "cats", count=10))
    assert found.names == ["ants", "bees", "cats"]
    assert by_class(found, "train") == {0: 42, 1: 42, 2: 7}
    assert by_class(found, "val") == {0: 6, 1: 6, 2: 1}
    assert by_class(found, "test") == {0: 12, 1: 12, 2: 2}
    assert read_own_folder(tmp_path).files == found.files
    paths = [image.path for part in found.parts for image in found.files[part]]
    assert len(paths) == len(set(paths)) == 130
    # Most images stay where they were.
    before = {image.path for image in found.files["test"]}
    fill(tmp_path, "ants", "bees", "cats", count=66)
    after = {image.path for image in read_own_folder(tmp_path).files["test"]}
    assert len(before & after) >= 0.7 * len(before)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_every_class_keeps_training_images(
    count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "ants", count=30)
    found = read_own_folder(fill(tmp_path, "bees", count=count))
    assert by_class(found, "train")[1] >= 1
    tested = by_class(found, "test")[1] > 0
    assert ("no test images of bees: the accuracy says nothing" in caplog.text) != tested
    assert tested == (count >= 3)


def test_a_folder_with_too_few_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has too few images: none for test"):
        read_own_folder(fill(tmp_path, "ants", "bees", count=2))
    fill(tmp_path, "ants", "bees", count=3)
    assert read_own_folder(tmp_path).parts == ("train", "test")  # no val


def test_splits_that_a_user_has_are_kept(tmp_path: Path) -> None:
    fill(tmp_path, "train/ants", "train/bees", "test/ants", count=60)
    found = read_own_folder(tmp_path)
    assert found.count("test") == 60
    assert found.count("train") + found.count("val") == 120
    assert found.count("val") > 0

    pictures.save(tmp_path / "test" / "wasps" / "1.png", 0, 0)
    with pytest.raises(DataError, match=r"classes that .*train does not have: \['wasps'\]"):
        read_own_folder(tmp_path)


def test_a_folder_of_images_alone_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "ants")
    with pytest.raises(DataError, match="has 0 class folders"):
        read_own_folder(tmp_path / "ants")


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
    found = read_own_folder(fill(tmp_path, *names))
    assert found.names == ["a", "b"]
    assert {part: found.count(part) for part in sizes} == sizes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train/a", "train/b", "val/a", "valid/a"],
            "has val and valid; one folder for val is allowed",
        ),
        (
            ["train/a", "train/b", "more/a/x"],
            "has more beside train; only val and test may be there. Move it elsewhere",
        ),
        (
            ["one/train", "one/test", "two/train", "two/test"],
            "Turn the two levels of folders round",
        ),
        (["nest/a", "nest/b"], r"has 1 class folders \['nest'\].* Is it data.root=.*nest\?"),
        (["a", "b", "c/.hidden"], "has no images of c"),
        (["a", "b/.hidden", "c/.hidden"], "has no images of b, c"),
    ],
)
def test_folders_that_could_mean_two_things_are_refused(
    names: list[str], message: str, tmp_path: Path
) -> None:
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        read_own_folder(tmp_path)


def test_what_is_not_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unlabelled images beside splits, and images beside classes; macOS's folder is nobody's."""
    fill(tmp_path, "seg_train/a", "seg_train/b", "seg_test/a", "seg_pred", "__MACOSX", count=12)
    pictures.save(tmp_path / "seg_train" / "stray.png", 0, 0)
    found = read_own_folder(tmp_path)
    assert found.names == ["a", "b"]
    assert found.count("test") == 12
    assert "not read, it has no class folders: seg_pred" in caplog.text
    assert "seg_train: 1 images beside the class folders are not read" in caplog.text
    assert "MACOSX" not in caplog.text


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    found = read_own_folder(fill(tmp_path, "train", "bus", "car"))
    assert found.names == ["bus", "car", "train"]


def test_a_link_that_loops_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(DataError, match="is a link to a folder above it"):
        read_own_folder(tmp_path)


def test_files_that_are_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, "a", "b")
    for name in ("a/1.heic", "a/2.heic", "b/notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level("INFO"):
        task_data.folder_suite(str(tmp_path))
    assert "2 classes (a, b); images: train" in caplog.text
    assert "left out, not images of a known format: {'.heic': 2, '.txt': 1}" in caplog.text


def test_own_folders_of_one_name_are_two_tasks(tmp_path: Path) -> None:
    names = []
    for parent in ("one", "two"):
        folder = fill(tmp_path / parent / "pics", "a", "b", count=30)
        names += task_data.folder_suite(str(folder)).tasks
    assert len(set(names)) == 2
    assert all(name.startswith("pics-") for name in names)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train", "seg_test"),
        ("training_set", "test_set"),
        ("train_images", "test-images"),
        ("trainset", "testset"),
        ("Training Data", "Testing Data"),
        ("train2017", "test2017"),
        ("imgs_train", "photos.test"),
        ("dataset-train", "dataset-validation"),
        ("train_images", "val_images"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("TrainImages", "TestImages"),
        ("trainData", "valData"),
    ],
)
def test_splits_that_are_called_otherwise_are_recognised(
    train: str, test: str, tmp_path: Path
) -> None:
    fill(tmp_path, f"{train}/ants", f"{train}/bees", f"{test}/ants", f"{test}/bees", count=12)
    found = read_own_folder(tmp_path)
    assert found.names == ["ants", "bees"]
    assert {image.path.rpartition("/")[0] for image in found.files["test"]} == {
        f"{test}/ants",
        f"{test}/bees",
    }


@pytest.mark.parametrize(
    "names",
    [
        ["for training/a", "for training/b", "for testing/a", "for testing/b"],
        ["train", "test"],  # images without classes
        ["my_train_pics", "my_test_pics"],
        ["test/a", "test/b", "val/a", "val/b"],
        ["a", "b", "test/a", "test/b"],  # a split that the classes stand beside
        ["old train", "new val"],
        ["trainA/a", "trainB/a", "testA/a", "testB/a"],
        ["learn/a", "learn/b", "eval/a", "eval/b"],
        ["fold1/a", "fold1/b", "fold2/a", "fold2/b"],
    ],
)
def test_splits_are_never_trained_as_classes(names: list[str], tmp_path: Path) -> None:
    fill(tmp_path, *names, count=12)
    with pytest.raises(DataError, match="which look like splits and not like classes; train/CLASS"):
        read_own_folder(tmp_path)


def test_classes_that_look_like_splits_stand_in_a_folder_train(tmp_path: Path) -> None:
    fill(tmp_path, "train/test tubes", "train/train tracks", "train/cups/red", "train/mugs/red")
    assert read_own_folder(tmp_path).names == ["cups", "mugs", "test tubes", "train tracks"]


def test_images_of_unknown_classes_are_no_test_split(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "test", count=12)
    message = r"test has no images in class folders; .* give data\.root=.*train, and a test split"
    with pytest.raises(DataError, match=message):
        read_own_folder(tmp_path)


def test_a_val_without_test_is_said_to_be_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "train/a", "train/b", "val/a", "val/b")
    with caplog.at_level("INFO"):
        found = read_own_folder(tmp_path)
    assert "has no test split: val is taken as that, and val is drawn from train" in caplog.text
    assert {image.path.partition("/")[0] for image in found.files["val"]} == {"train"}


def test_formats_that_are_not_read_are_named_where_a_class_has_no_others(tmp_path: Path) -> None:
    fill(tmp_path, "ants", "bees")
    (tmp_path / "cats").mkdir()
    for i in range(3):
        (tmp_path / f"cats/{i}.HEIC").touch()
    with pytest.raises(
        DataError, match=r"no images of cats .*\(cats has \{'\.heic': 3\}\)"
    ) as error:
        read_own_folder(tmp_path)
    assert "move" not in str(error.value)  # it may hold records
    assert "remove" not in str(error.value)


def test_names_that_are_not_utf_8_work(tmp_path: Path) -> None:
    fill(tmp_path, "ants", "bees", count=10)
    odd = os.fsencode(tmp_path) + b"/ants/\xff.png"
    (tmp_path / "ants/1.png").rename(os.fsdecode(odd))
    (tmp_path / "bees").rename(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe9\xe9s"))
    suite = task_data.folder_suite(str(tmp_path), "insects")
    task = suite.task("insects")
    assert task.classes == ("ants", "b\\xe9\\xe9s")
    packed = task_data.open_task(suite, task, tmp_path / "data", "vtab", 8)
    ids = [each for part in ("train", "val", "test") for each in packed.load_part(part).ids]
    assert "ants/\\xff.png" in ids
    assert len(ids) == len(set(ids)) == 20


@pytest.mark.parametrize("name", ["photos (1)", "a+b & c", ".hidden", "ünï", "x'y", "a#b"])
def test_the_name_that_a_folder_has_by_itself_may_be_given(name: str, tmp_path: Path) -> None:
    """It stands in records, from which sweeps and commands take it."""
    folder = str(fill(tmp_path / name, "a", "b", count=10))
    (by_itself,) = task_data.folder_suite(folder).tasks
    assert list(task_data.folder_suite(folder, by_itself).tasks) == [by_itself]


def test_two_folders_of_one_name_do_not_share_their_packed_images(tmp_path: Path) -> None:
    packed = []
    for parent, count in (("one", 12), ("two", 20)):
        folder = fill(tmp_path / parent, "a", "b", count=count)
        suite = task_data.folder_suite(str(folder), "pets")
        task = suite.task("pets")
        packed.append(task_data.open_task(suite, task, tmp_path / "data", "vtab", 8))
    assert [len(each.load_part("train").ids) for each in packed] == [18, 28]
    assert len({each.folder for each in packed}) == 2


@pytest.mark.parametrize("key", ["root", "task"])
def test_a_name_that_is_a_number_is_refused_in_words(key: str) -> None:
    data = {"suite": "folder", "root": "x", "task": None, key: 2024}
    with pytest.raises(InvalidValueError, match=f"data.{key}"):
        task_data.task_of(data)


def test_equal_images_are_said_at_every_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path / "own", "train/a", "train/b", "test/a", "test/b", count=60)
    (tmp_path / "own/test/a/x.png").write_bytes((tmp_path / "own/train/a/0.png").read_bytes())
    for i in range(60):
        pictures.save(folder / f"test/a/{i}.png", 70, i)
        pictures.save(folder / f"test/b/{i}.png", 71, i)
        pictures.save(folder / f"train/b/{i}.png", 72, i)
    suite = task_data.folder_suite(str(folder), "pets")
    for _ in range(2):
        caplog.clear()
        task_data.open_task(suite, suite.task("pets"), tmp_path / "data", "vtab", 8)
        assert "1 of 108 images of train are in test under other names" in caplog.text


def test_own_images_may_be_named(tmp_path: Path) -> None:
    folder = str(fill(tmp_path / "pics", "a", "b", count=30))
    assert list(task_data.folder_suite(folder, "my insects").tasks) == ["my insects"]
    for name in ("", ".hidden", "a/b", "..", "a\nb", "-x/../y"):
        with pytest.raises(InvalidValueError, match="(?s)data.task is .*; allowed: letters"):
            task_data.folder_suite(folder, name)
