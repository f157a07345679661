"""The vtab-1k folder is read as it is, and what is wrong with it is named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pictures
import pytest
from small_tasks import DTD, LISTS, VTAB, small

from san.data.prepare.sources import find_source
from san.errors import DataError


@pytest.mark.parametrize("kind", ["task folder", "suite folder", "zip"])
def test_the_vtab_1k_folder(kind: str, tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "vtab-1k" / "dtd", LISTS, 47)
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "v"), "zip", tmp_path, "vtab-1k")
    path = {"task folder": folder, "suite folder": tmp_path, "zip": tmp_path / "v.zip"}[kind]
    packed = DTD.pack(path, tmp_path / "data")
    split = packed.load_part("test")
    assert split.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert split.ids[5] == "images/test/000005.jpg"
    assert split.source == "vtab-1k folder"
    assert split.image(0).shape == (8, 8, 3)
    assert packed.membership().good is None


def test_other_names_of_a_task_are_found(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "pets", LISTS, 37)
    pets = small(VTAB.task("oxford_iiit_pet"), train=8, val=4, test=6)
    packed = pets.pack(tmp_path, tmp_path / "data")
    assert len(packed.load_part("val")) == 4


def write(name: str, content: str) -> Callable[[Path], object]:
    """Replace a file of a folder."""
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            write("test.txt", "images/test/000000.jpg\n"),
            "test.txt .*, line 1: .*allowed: PATH LABEL",
        ),
        (
            write("test.txt", "images/test/9.jpg 1\n" * 6),
            "test.txt names 6 files .*does not have: images/test/9.jpg",
        ),
        (
            write("test.txt", "../../secret.jpg 1\n" * 6),
            r"'\.\./\.\./secret.jpg' points out of",
        ),
        (
            write("test.txt", "/etc/passwd 1\n" * 6),
            "'/etc/passwd' points out of",
        ),
        (
            write("test.txt", "images/test/000000.jpg 47\n" * 6),
            r"has label 47; 0\.\.46 are allowed",
        ),
        (
            write("test.txt", "images/test/000000.jpg 1\n"),
            "test has 1 images; 6 are expected",
        ),
        (
            write("images/test/000003.jpg", "not an image"),
            "Image images/test/000003.jpg of small/dtd cannot be decoded .it is not an image",
        ),
        (
            lambda folder: (folder / "val200.txt").unlink(),
            "val200.txt of .* cannot be read",
        ),
    ],
)
def test_a_damaged_list_is_named_and_leaves_no_split(
    spoil: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    spoil(folder)
    with pytest.raises(DataError, match=message):
        DTD.pack(folder, tmp_path / "data")
    assert not (tmp_path / "data/small/dtd/vtab-8/test").exists()
    assert not list((tmp_path / "data").rglob(".*"))


def test_lists_as_editors_leave_them(tmp_path: Path) -> None:
    folder = pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    path = folder / "test.txt"
    plain = path.read_text()
    byte_order_mark = b"\xef\xbb\xbf"
    edited = plain.replace(" ", "\t").replace("\n", "\r\n")
    path.write_bytes(byte_order_mark + edited.encode() + b"\n")
    assert find_source(DTD.task, folder).count("test") == 6
    path.write_bytes(b"\x8c\xff\x00")
    with pytest.raises(DataError, match="test.txt of .* is not a text file"):
        find_source(DTD.task, folder)
