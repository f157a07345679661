"""The vtab-1k folder is read as it is, and what is wrong with it is named."""

import shutil
from pathlib import Path
from typing import Any

import pictures
import pytest
from small_tasks import DTD, LISTS, VTAB, packed, small

from san.data import verify
from san.data.prepare.sources import find_source


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
