"""TFDS's copies: which one is read, which rows of it, and with which ids."""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pictures
import pytest
from small_tasks import FGVC, VTAB

from san.data import pack, verify
from san.data.layout import packed_dir
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import tfds
from san.tasks import load_suite


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
