"""Folders of images, one a class: benchmarks' and users' own."""

import shutil
from pathlib import Path

import pictures
import pytest
from small_tasks import GIC, packed, small

from san.data import task_data, verify
from san.data.prepare.sources import find_source, folders
from san.tasks import load_suite


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
