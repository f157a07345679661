"""TFDS's copies: which one is read, which rows of it, and with which ids."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pictures
import pytest
from small_tasks import FGVC, VTAB, SmallTask, small

from san.data.pack import ids_digest
from san.data.prepare.sources import tfds
from san.data.verify import verify
from san.errors import DataError
from san.tasks import TfdsSource, load_suite


@pytest.mark.parametrize(
    ("expression", "count", "rows"),
    [
        ("test", 7, range(7)),
        ("train[:800]", 3060, range(800)),
        ("train[90%:+200]", 3060, range(2754, 2954)),
        ("train[90%:+200]", 73257, range(65931, 66131)),
        ("train[80%:+200]", 3680, range(2944, 3144)),
        ("train[60%:+200]", 27000, range(16200, 16400)),
        ("train[80%:]", 27000, range(21600, 27000)),
        ("test[50%:]", 24300, range(12150, 24300)),
        ("train[80%:+200]", 737280, range(589824, 590024)),
    ],
)
def test_slices_are_those_of_task_adaptation(expression: str, count: int, rows: range) -> None:
    assert tfds.slice_rows(expression, count) == rows


def test_a_slice_past_the_end_is_refused() -> None:
    with pytest.raises(DataError, match=r"train\[:800\] asks for rows 0 to 800 of 500"):
        tfds.slice_rows("train[:800]", 500)


def test_the_newest_readable_copy_is_taken_unless_the_row_asks_for_another(tmp_path: Path) -> None:
    task = VTAB.task("dsprites_loc")
    assert task.tfds is not None
    assert task.tfds.version == "2.1.0"
    for version in ("1.0.0", "2.0.0", "2.1.0", "2.2.0", "3.0.0"):
        folder = tmp_path / "dsprites" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
    found = [path.name for path in tfds.copies(task, tmp_path)]
    assert found == ["2.0.0", "2.2.0", "2.1.0"]  # the best is last
    assert tfds.copies(VTAB.task("kitti"), tmp_path) == []


def train_order(count: int) -> list[int]:
    """The order in which TFDS stores a split `train` whose keys are indices."""

    def key(i: int) -> bytes:
        return hashlib.md5(f"train{i}".encode(), usedforsecurity=False).digest()

    return sorted(range(count), key=key)


def test_the_digest_of_dsprites_is_that_of_the_documented_order() -> None:
    """Its ids are indices in six digits; all 737280 are known, and so is their digest."""
    order = train_order(737280)
    rows = [*order[:800], *order[589824:590024]]
    expected = ids_digest([f"{i:06d}" for i in rows])
    assert VTAB.task("dsprites_loc").ids_digest == expected
    assert VTAB.task("dsprites_ori").ids_digest == expected
    assert ids_digest([str(i) for i in rows]) == "9201b9066b1d4e5a"


@pytest.mark.parametrize(("name", "count", "digits"), [("cifar", 50000, 5), ("svhn", 73257, 6)])
def test_the_digests_of_index_keyed_sets_follow_from_their_size(
    name: str, count: int, digits: int
) -> None:
    order = train_order(count)
    task = VTAB.task(name)
    slices = tfds.source_of(task).splits
    rows = [*tfds.slice_rows(slices["train"], count), *tfds.slice_rows(slices["val"], count)]
    assert len(rows) == 1000
    assert task.ids_digest == ids_digest([f"train_{order[row]:0{digits}d}" for row in rows])


class FakeBuilder:
    """What TfdsCopy asks of TFDS's builder."""

    data_path = "fake"

    def __init__(self, splits: dict[str, int], features: list[str]) -> None:
        sizes = {name: SimpleNamespace(num_examples=count) for name, count in splits.items()}
        self.info = SimpleNamespace(
            splits=sizes,
            features=dict.fromkeys(features),
            full_name="fake/1.0.0",
            file_format=SimpleNamespace(value="array_record"),
        )


def fake_records(builder: FakeBuilder, split: str, rows: range) -> Iterator[dict[str, Any]]:
    """Images of which no two are equal; their names are those of other splits, too."""
    for row in rows:
        name = f"{row}.jpg".encode()
        yield {
            "label": row % 3,
            "image": pictures.png(row % 3, 100 * len(split) + row),
            "id": name,
            "file_name": name,
            "image/filename": name,
        }


@pytest.mark.parametrize("name", ["cub", "stanford_dogs", "stanford_cars", "oxford_flowers"])
def test_fine_grained_sets_of_tfds_have_the_official_split(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfds, "read_array_records", fake_records)
    full = small(FGVC.task(name), train=4, val=2, test=3)
    official = {"train": 4, "test": 3} if full.task.official_splits else None
    task = replace(full.task, official_splits=official)
    builder = FakeBuilder(
        {"train": 4, "test": 3, "validation": 2},
        ["id", "file_name", "image/filename", "image", "label"],
    )
    case = SmallTask(full.suite, task)
    case.pack_source(tfds.TfdsCopy(task, builder), tmp_path)

    packed = case.open(tmp_path)
    found = [packed.load_part(part) for part in packed.parts("train+val")]
    assert sum(map(len, found)) == (4 if official else 6)
    assert all(part.problems == () for part in found)
    layout = ", official split" if official else ""
    assert found[0].source == f"TFDS fake/1.0.0{layout}"
    if name == "stanford_cars":  # whose ids repeat between the splits
        assert found[0].ids[0] == "train/0.jpg"
    findings = verify(task, packed.folder)
    assert [finding.text for finding in findings if finding.good is False] == []


def test_a_copy_without_ids_numbers_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfds, "read_array_records", fake_records)
    cars = small(FGVC.task("stanford_cars"), train=4, test=3)
    builder = FakeBuilder({"train": 4, "test": 3}, ["image", "label"])
    copy = tfds.TfdsCopy(cars.task, builder)
    assert copy.describe("train")["ids"] == "rows"
    assert [id_ for id_, _, _ in copy.examples("train")] == [f"train-{i}" for i in range(4)]


def test_a_split_that_a_copy_lacks_is_named() -> None:
    cars = small(FGVC.task("stanford_cars"), train=4, test=3)
    copy = tfds.TfdsCopy(cars.task, FakeBuilder({"train": 4, "extra": 3}, ["image", "label"]))
    with pytest.raises(DataError, match=r"fake has no split test \(it has train, extra\)"):
        copy.count("test")


def test_every_row_is_complete() -> None:
    suites = [load_suite(name) for name in ("vtab", "fgvc", "gic", "robustness")]
    tasks = [task for suite in suites for task in suite.tasks.values()]
    assert len(tasks) == 19 + 5 + 2 + 21
    assert sum(task.splits["test"] for task in VTAB.tasks.values()) == 387904
    assert sum(task.ids_digest is not None for task in VTAB.tasks.values()) == 12
    classes = [100, 102, 47, 102, 37, 10, 397, 2, 10, 45, 5, 8, 6, 6, 4, 16, 16, 18, 9]
    assert [len(task.classes) for task in VTAB.tasks.values()] == classes
    expressions = []
    for task in tasks:
        assert task.tfds or task.how_to_get
        assert task.licence
        # ImageNet has two classes of one name.
        assert len(set(task.classes)) == len(task.classes) or task.suite == "gic"
        if isinstance(task.tfds, TfdsSource):
            expressions += task.tfds.splits.values()
    assert len(expressions) > 19 * 3
    for expression in expressions:
        assert tfds.SLICE.fullmatch(expression)
