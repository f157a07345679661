"""Images that two splits share are found, by their ids and by their pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_packed_task import LABELS, UPSTREAM, ids_of, image_of, small_task

from san.data import hashes as hashes_module
from san.data.hashes import load_hashes
from san.data.overlap import find_twins, shared_names
from san.data.pack import write_split
from san.data.packed_task import PackedTask
from san.data.split import read_split
from san.data.task_data import usable_split
from san.data.verify import verify
from san.errors import DataError

LISTS = {"made_by": "vtab-1k folder", "ids": "file names"}
# 100 images in test, of which two may be equal to others by nature.
SIZES = {"train": 200, "val": 50, "test": 100}


def many(part: str) -> list[str]:
    return [f"{part}-{i}" for i in range(SIZES[part])]


def write(folder: Path, twins: int, source: dict[str, Any]) -> PackedTask:
    """Pack three splits; the first images of test are those of train under other names."""
    for part in SIZES:
        names = many(part)
        images = [image_of(name) for name in names]
        if part == "test":
            images[:twins] = [image_of(name) for name in many("train")[:twins]]
        labels = [i % 3 for i in range(len(names))]
        write_split(folder / part, zip(names, labels, images, strict=True), source)
    task = small_task(splits=SIZES, ids_digest=None)
    return PackedTask.open(task, folder)


def test_two_equal_images_in_a_hundred_are_said_and_three_are_refused(tmp_path: Path) -> None:
    few = write(tmp_path, 2, LISTS)
    assert [finding.good for finding in few.overlaps] == [None]
    text = "2 of 100 images of test are in train under other names: test-0 is train-0"
    assert few.overlaps[0].text == f"{text}, test-1 is train-1"
    assert all(few.split(name).problems == () for name in SIZES)
    findings = verify(few.task, tmp_path)
    assert [finding.text for finding in findings if finding.good is False] == []
    assert few.overlaps[0] in findings

    more = write(tmp_path, 3, LISTS)
    for name in ("train", "val", "test", "train+val"):
        with pytest.raises(DataError, match="3 of 100 images of test are in train under other"):
            usable_split(more, name)
        forced = usable_split(more, name, force=True)
        assert forced.problems == (f"{tmp_path}: {more.overlaps[0].text}",)
    wrong = [found.text for found in verify(more.task, tmp_path) if found.good is False]
    assert wrong == [more.overlaps[0].text]


def test_equal_images_are_no_problem_where_splits_are_known_to_be_disjoint(tmp_path: Path) -> None:
    rows = write(tmp_path / "tfds", 100, UPSTREAM | {"ids": "rows"})
    assert rows.split("test").problems == ()
    assert [finding.good for finding in rows.overlaps] == [None]

    for part in LABELS:
        images = [image_of(f"{i}") for i in range(len(LABELS[part]))]
        source = LISTS | {"ids": "upstream"}
        rows = zip(ids_of(part), LABELS[part], images, strict=True)
        write_split(tmp_path / "ids" / part, rows, source)
    known = PackedTask.open(small_task(), tmp_path / "ids")
    assert known.membership().good is True
    assert known.split("train").problems == ()
    unknown = PackedTask.open(small_task(ids_digest=None), tmp_path / "ids")
    (problem, *others) = unknown.split("train").problems
    assert "2 of 2 images of val are in train under other names: val-0 is train-0" in problem
    assert len(others) == 2


def test_a_damaged_split_is_compared_with_none(tmp_path: Path) -> None:
    write(tmp_path, 100, LISTS)
    (tmp_path / "train/ids.json").write_text("{")
    task = small_task(splits=SIZES, ids_digest=None)
    assert PackedTask.open(task, tmp_path).split("test").problems == ()
    assert any(found.good is False for found in verify(task, tmp_path))


def test_names_are_shared_by_two_of_three() -> None:
    names = {"train": ["a", "b", "c"], "val": ["d"], "test": ["c", "x", "b"]}
    assert shared_names(names) == ["train and test share 2 images: b, c"]
    hashes = {part: np.arange(len(names[part]), dtype=np.uint64) for part in names}
    assert shared_names(names, hashes) == []
    hashes["test"][0] = 2  # the c of train
    assert shared_names(names, hashes) == ["train and test share 1 images: c"]


def test_an_image_of_one_name_in_two_splits_is_no_twin() -> None:
    names = {"train": ["a", "b", "c"], "test": ["c", "x"]}
    one = np.array([7, 8, 9], np.uint64)
    (twins,) = find_twins(names, {"train": one, "test": np.array([9, 7], np.uint64)})
    assert twins.text == "1 of 2 images of test are in train under other names: x is a"
    assert find_twins(names, {"train": one, "test": np.array([9, 1], np.uint64)}) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path, np.zeros(4, np.uint64)),
        lambda path: np.save(path, np.zeros(5, np.int64)),
        lambda path: np.save(path, np.zeros((5, 1), np.uint64)),
        lambda path: np.save(path, np.array([{}])),
    ],
)
def test_hashes_that_are_missing_or_damaged_are_made_again(damage: Any, tmp_path: Path) -> None:
    rows = [(f"i{i}", 0, image_of(f"{i}")) for i in range(5)]
    write_split(tmp_path / "s", rows, LISTS)
    path = tmp_path / "s" / "hashes.npy"
    expected = path.read_bytes()
    images = read_split(tmp_path / "s", 5, 1).parts[0]
    damage(path)
    assert len(set(load_hashes(tmp_path / "s", images).tolist())) == 5
    assert path.read_bytes() == expected


def test_hashes_older_than_the_images_are_made_again(tmp_path: Path) -> None:
    for name in ("s", "t"):
        write_split(tmp_path / name, [("i", 0, image_of(name))], LISTS)
    (tmp_path / "s/hashes.npy").replace(tmp_path / "t/hashes.npy")
    (tmp_path / "t/images.npy").touch()
    images = read_split(tmp_path / "t", 1, 1).parts[0]
    expected = hashes_module.hash_image(image_of("t"))
    assert load_hashes(tmp_path / "t", images).tolist() == [expected]


def test_verify_hashes_again(tmp_path: Path) -> None:
    packed = write(tmp_path, 100, LISTS)
    np.save(tmp_path / "train/hashes.npy", np.arange(200, dtype=np.uint64))
    assert packed.overlaps == []  # which are believed
    wrong = [found.text for found in verify(packed.task, tmp_path) if found.good is False]
    assert len(wrong) == 1
    assert wrong[0].startswith("100 of 100 images of test are in train under other names")


def test_hashes_of_files_are_those_of_their_bytes(tmp_path: Path) -> None:
    files = [b"one", b"two", b"one"]
    rows = [(f"i{i}", 0, file) for i, file in enumerate(files)]
    write_split(tmp_path / "s", rows, LISTS)
    images = read_split(tmp_path / "s", 3, 1).parts[0]
    stored = load_hashes(tmp_path / "s", images).tolist()
    assert stored == load_hashes(tmp_path / "s", images, full=True).tolist()
    assert stored[0] == stored[2] != stored[1]
    by_b2sum = bytes.fromhex("34f2ddaa8b7615c9")  # printf one | b2sum -l 64
    assert stored[0] == int.from_bytes(by_b2sum, "little")
