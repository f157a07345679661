"""The demo suite, names that do not exist, and what is said where data is missing or wrong."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from san.data import task_data
from san.data.layout import packed_dir
from san.data.pack import ids_digest, write_split
from san.data.prepare import demo, demo_images
from san.data.split import Split
from san.errors import DataError, NotPreparedError, SanError
from san.tasks import Suite, Task, load_suite

DEMO = load_suite("demo")
VTAB = load_suite("vtab")


def load(suite: Suite, task: Task, split: str, root: Path, force: bool = False) -> Split:
    return task_data.load_split(suite, task, split, root, resize="vtab", image_size=32, force=force)


@pytest.mark.parametrize("name", DEMO.tasks)
def test_demo_task_is_what_its_row_says(name: str, data_root: Path) -> None:
    task = DEMO.task(name)
    names = ("train", "val", "test", "train+val")
    splits = {split: load(DEMO, task, split, data_root) for split in names}
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 800,
        "val": 200,
        "test": task.splits["test"],
        "train+val": 1000,
    }
    ids = [i for split in ("train", "val", "test") for i in splits[split].ids]
    assert len(set(ids)) == len(ids)
    for split in splits.values():
        histogram = np.bincount(split.labels, minlength=len(task.classes))
        assert len(histogram) == len(task.classes)
        assert histogram.min() > 0.5 * len(split) / len(task.classes)


def test_the_demo_suite_has_two_tasks_in_each_group() -> None:
    groups = Counter(task.group for task in DEMO.tasks.values())
    assert groups == {"natural": 2, "specialised": 2, "structured": 2}
    assert list(groups) == ["natural", "specialised", "structured"]


@pytest.mark.parametrize("name", sorted(demo_images.DRAW))
def test_drawing_depends_on_the_seed_alone(name: str) -> None:
    classes = len(DEMO.task(name).classes)
    first, labels = demo_images.draw(name, classes, 12, seed=1)
    again, _ = demo_images.draw(name, classes, 12, seed=1)
    other, _ = demo_images.draw(name, classes, 12, seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert labels.tolist() == [i % classes for i in range(12)]
    assert first.dtype == np.uint8
    assert first.std() > 10


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    images, labels, ids = demo.digits(seed=0)
    original = load_digits()
    row = int(ids[5].removeprefix("digits-"))
    assert labels[5] == original.target[row]
    assert np.array_equal(images[5, :, :, 0], np.rint(original.images[row] / 16 * 255))
    assert len(images) == 1797


def test_another_seed_draws_other_demo_images(tmp_path: Path) -> None:
    task = DEMO.task("count")
    first = load(DEMO, task, "val", tmp_path)
    again = load(DEMO, task, "val", tmp_path)
    other = load(replace(DEMO, seed=1), task, "val", tmp_path)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_unknown_names_say_what_is_near() -> None:
    with pytest.raises(SanError, match="Unknown task of demo 'digit'. Did you mean digits"):
        DEMO.task("digit")
    with pytest.raises(SanError, match="Unknown split of demo/digits 'tests'. Did you mean test"):
        DEMO.task("digits").size("train+tests")
    with pytest.raises(SanError, match="Unknown suite 'demos'. Did you mean demo"):
        load_suite("demos")
    with pytest.raises(SanError, match="Unknown task of vtab 'cifar10'. Did you mean cifar"):
        VTAB.task("cifar10")


def test_a_task_without_val_has_it_in_no_sum_and_not_alone() -> None:
    task = load_suite("gic").task("cifar100")
    assert task.parts("train+val") == ["train"]
    assert task.size("train+val") == 50000
    with pytest.raises(SanError, match="Unknown split of gic/cifar100 'val'"):
        task.parts("val")


def test_data_that_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NotPreparedError) as error:
        task_data.load_split(VTAB, VTAB.task("cifar"), "train", tmp_path, "vtab", 224)
    expected = [
        "make prepare-vtab TASKS=cifar",
        "downloads 0.17 GB",
        "0.034 GB",
        "--from",
        "data=demo/digits",
    ]
    for text in expected:
        assert text in str(error.value)
    assert error.value.bytes_needed == 11000 * 32 * 32 * 3


def test_data_packed_for_another_input_is_said(tmp_path: Path) -> None:
    (tmp_path / "vtab/dtd/vtab-224").mkdir(parents=True)
    message = "packed as vtab-224 .* takes resize bicubic at 224 px(.|\n)*--resize bicubic"
    with pytest.raises(NotPreparedError, match=message):
        task_data.load_split(VTAB, VTAB.task("dtd"), "train", tmp_path, "bicubic", 224)


def test_other_images_than_the_benchmark_s_are_used_only_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    splits = {"train": 2, "val": 1, "test": 1}
    known = replace(VTAB.task("cifar"), classes=("0",), splits=splits)
    task = replace(known, ids_digest=ids_digest(["train-0", "train-1", "val-0"]))
    folder = packed_dir(task, tmp_path, "vtab", 32)
    for part, count in splits.items():
        rows = [(f"{part}-{i}", 0, np.zeros((32, 32, 3), np.uint8)) for i in range(count)]
        write_split(folder / part, rows, {"made_by": "TFDS", "ids": "upstream"})
    assert load(VTAB, task, "test", tmp_path).problems == ()
    with pytest.raises(DataError, match="other images were chosen.* allow_unverified_data=true"):
        load(VTAB, known, "test", tmp_path)
    forced = load(VTAB, known, "test", tmp_path, force=True)
    assert len(forced.problems) == 1
    assert "other images were chosen" in forced.problems[0]
