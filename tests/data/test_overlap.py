"""Images that two splits share are found, by their ids and by their pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_packed_task import LABELS, UPSTREAM, ids_of, image_of, small_task

from san.data import proof
from san.data.overlap import describe_shared_names, find_duplicates
from san.data.pack import hardlink_images, write_split
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


def write(folder: Path, duplicates: int, source: dict[str, Any]) -> PackedTask:
    """Pack three splits; the first images of test are those of train under other names."""
    for part in SIZES:
        names = many(part)
        images = [image_of(name) for name in names]
        if part == "test":
            images[:duplicates] = [image_of(name) for name in many("train")[:duplicates]]
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
    assert describe_shared_names(names) == ["train and test share 2 images: b, c"]
    hashes = {part: np.arange(len(names[part]), dtype=np.uint64) for part in names}
    assert describe_shared_names(names, hashes) == []
    hashes["test"][0] = 2  # the c of train
    assert describe_shared_names(names, hashes) == ["train and test share 1 images: c"]


def test_an_image_of_one_name_in_two_splits_is_no_duplicate() -> None:
    names = {"train": ["a", "b", "c"], "test": ["c", "x"]}
    one = np.array([7, 8, 9], np.uint64)
    (duplicates,) = find_duplicates(names, {"train": one, "test": np.array([9, 7], np.uint64)})
    assert duplicates.text == "1 of 2 images of test are in train under other names: x is a"
    assert find_duplicates(names, {"train": one, "test": np.array([9, 1], np.uint64)}) == []


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the images that are hashed."""
    sizes = []
    hash_image = proof.hash_image

    def counted(image: np.ndarray) -> int:
        sizes.append(image.size)
        return hash_image(image)

    monkeypatch.setattr(proof, "hash_image", counted)
    return sizes


def forge(path: Path) -> None:
    np.save(path, np.arange(5, dtype=np.uint64))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: np.save(path, np.zeros(4, np.uint64)),
        lambda path: np.save(path, np.load(path).view(np.int64)),
        lambda path: np.save(path, np.load(path).view(np.uint8)),
        lambda path: np.save(path, np.load(path)[:, None]),
        lambda path: np.save(path, np.array([{}])),
        lambda path: (path.parent / "proved.json").unlink(),
        lambda path: (path.parent / "proved.json").write_text("{}"),
        flip_a_bit,
        forge,
    ],
)
def test_hashes_that_are_not_those_of_the_proof_are_made_again(
    damage: Any, tmp_path: Path, hashed: list[int]
) -> None:
    folder = tmp_path / "s"
    write_split(folder, [(f"i{i}", 0, image_of(f"{i}")) for i in range(5)], LISTS)
    expected = read_split(folder, 5, 1).hashes.tolist()
    assert expected == np.load(folder / "hashes.npy").tolist()
    assert len(set(expected)) == 5
    assert read_split(folder, 5, 1).hashes.tolist() == expected
    assert len(hashed) == 5  # once
    damage(folder / "hashes.npy")
    assert read_split(folder, 5, 1).hashes.tolist() == expected
    assert read_split(folder, 5, 1).hashes.tolist() == expected
    assert len(hashed) == 10
    assert np.load(folder / "hashes.npy").tolist() == expected


def test_hashes_of_other_images_are_not_believed(tmp_path: Path) -> None:
    """Not even with their proof, which is of another file."""
    for name in ("s", "t"):
        write_split(tmp_path / name, [("i", 0, image_of(name))], LISTS)
        read_split(tmp_path / name, 1, 1)
    for name in ("hashes.npy", "proved.json"):
        (tmp_path / "s" / name).replace(tmp_path / "t" / name)
    assert read_split(tmp_path / "t", 1, 1).hashes.tolist() == [proof.hash_image(image_of("t"))]


def test_forged_hashes_do_not_hide_a_leak(tmp_path: Path) -> None:
    packed = write(tmp_path, 100, LISTS)
    message = "100 of 100 images of test are in train under other names"
    for forged in ("train", "test"):
        with pytest.raises(DataError, match=message):
            usable_split(PackedTask.open(packed.task, tmp_path), "train")
        hashes = np.arange(SIZES[forged], dtype=np.uint64)
        np.save(tmp_path / forged / "hashes.npy", hashes)
    with pytest.raises(DataError, match=message):
        usable_split(PackedTask.open(packed.task, tmp_path), "train")
    np.save(tmp_path / "train/hashes.npy", np.arange(200, dtype=np.uint64))
    wrong = [found.text for found in verify(packed.task, tmp_path) if found.good is False]
    assert len(wrong) == 1
    assert wrong[0].startswith(message)


def test_images_are_read_once_by_verify_and_once_in_a_read_only_copy(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = write(tmp_path, 0, LISTS)
    verify(packed.task, tmp_path)
    assert len(hashed) == sum(SIZES.values())
    verify(packed.task, tmp_path)
    assert len(hashed) == 2 * sum(SIZES.values())
    for path in tmp_path.glob("*/proved.json"):
        path.unlink()
    hashed.clear()

    def refuse(*args: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(proof, "write_text", refuse)
    copy = PackedTask.open(packed.task, tmp_path)
    assert all(copy.split(name).problems == () for name in SIZES)
    assert len(hashed) == sum(SIZES.values())
    assert list(tmp_path.glob("*/proved.json")) == []


def test_images_that_become_one_file_are_read_again_once(tmp_path: Path, hashed: list[int]) -> None:
    """A link changes the times of both."""
    for name in ("s", "t"):
        write_split(tmp_path / name, [("i", 0, image_of("i"))], LISTS)
        read_split(tmp_path / name, 1, 1)
    assert hardlink_images(tmp_path / "s", tmp_path / "t")
    hashed.clear()
    for _ in range(3):
        first, second = (read_split(tmp_path / name, 1, 1).hashes for name in ("s", "t"))
        assert first.tolist() == second.tolist()
    assert len(hashed) == 2


def test_hashes_of_files_are_those_of_their_bytes(tmp_path: Path) -> None:
    files = [b"one", b"two", b"one"]
    rows = [(f"i{i}", 0, file) for i, file in enumerate(files)]
    write_split(tmp_path / "s", rows, LISTS)
    split = read_split(tmp_path / "s", 3, 1)
    hashes = split.hashes.tolist()
    assert split.pixel_hashes is not None
    assert split.pixel_hashes.tolist() == hashes  # none of them can be decoded
    assert hashes[0] == hashes[2] != hashes[1]
    by_b2sum = bytes.fromhex("34f2ddaa8b7615c9")  # printf one | b2sum -l 64
    assert hashes[0] == int.from_bytes(by_b2sum, "little")


def saved(name: str, kind: str) -> bytes:
    """An image in a file of a format; or a PNG with a byte at its end."""
    file = io.BytesIO()
    Image.fromarray(image_of(name)).save(file, "PNG" if kind == "longer" else kind)
    return file.getvalue() + (b"x" if kind == "longer" else b"")


def write_files(folder: Path, copies: int, kind: str) -> PackedTask:
    """Pack image files; the first of test are those of train, saved again."""
    for part in SIZES:
        names = many(part)
        files = [saved(name, "PNG") for name in names]
        if part == "test":
            files[:copies] = [saved(name, kind) for name in many("train")[:copies]]
        labels = [i % 3 for i in range(len(names))]
        write_split(folder / part, zip(names, labels, files, strict=True), LISTS)
    return PackedTask.open(small_task(splits=SIZES, ids_digest=None), folder)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "longer"])
def test_images_that_were_saved_again_are_equal(kind: str, tmp_path: Path) -> None:
    message = "3 of 100 images of test are in train under other names: test-0 is train-0"
    packed = write_files(tmp_path, 3, kind)
    stored = [set(packed.load_part(part).hashes.tolist()) for part in ("train", "test")]
    assert not stored[0] & stored[1]
    for _ in range(2):  # the hashes are believed the second time
        packed = PackedTask.open(packed.task, tmp_path)
        with pytest.raises(DataError, match=message):
            usable_split(packed, "train")
    wrong = [found.text for found in verify(packed.task, tmp_path) if found.good is False]
    assert [text[: len(message)] for text in wrong] == [message]
    assert write_files(tmp_path, 0, kind).overlaps == []


def test_splits_with_too_many_files_are_compared_by_bytes_and_verify_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All splits, as the hash of a file is never that of its pixels."""
    monkeypatch.setattr(proof, "MAX_DECODED", 150)
    packed = write_files(tmp_path / "bmp", 3, "BMP")
    assert packed.load_part("train").pixel_hashes is None
    assert packed.load_part("test").pixel_hashes is not None
    (found,) = packed.overlaps
    assert found.good is None
    assert "compared by the bytes of their files, not by their pixels: train has 200" in found.text
    assert found in verify(packed.task, tmp_path / "bmp")
    same = write_files(tmp_path / "png", 3, "PNG")
    assert [found.good for found in same.overlaps] == [None, False]

    monkeypatch.setattr(proof, "MAX_DECODED", 200)  # what was proved was of the bytes
    with pytest.raises(DataError, match="3 of 100 images of test are in train"):
        usable_split(PackedTask.open(packed.task, tmp_path / "bmp"), "test")


def test_hashes_of_pixels_are_of_their_shape_too(tmp_path: Path) -> None:
    rows = []
    for i, shape in enumerate([(2, 6, 3), (6, 2, 3), (2, 6, 3)]):
        file = io.BytesIO()
        Image.fromarray(np.zeros(shape, np.uint8)).save(file, "BMP" if i else "PNG")
        rows.append((f"i{i}", 0, file.getvalue()))
    write_split(tmp_path / "s", rows, LISTS)
    hashes = read_split(tmp_path / "s", 3, 1).pixel_hashes
    assert hashes is not None
    assert hashes[0] == hashes[2] != hashes[1]


def test_hashes_by_another_decoder_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[int]
) -> None:
    write_split(tmp_path / "s", [("i", 0, saved("i", "PNG"))], LISTS)
    read_split(tmp_path / "s", 1, 1)
    read_split(tmp_path / "s", 1, 1)
    assert len(hashed) == 2  # of the file and of its pixels
    monkeypatch.setattr(proof.PIL, "__version__", "0")
    read_split(tmp_path / "s", 1, 1)
    assert len(hashed) == 4
