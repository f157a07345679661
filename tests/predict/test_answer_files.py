"""Answers replace older answers, and nothing else."""

import os
import re
from pathlib import Path

import pytest

from san.errors import FileAccessError, InvalidValueError
from san.predict.answer_files import AnswerFiles

NAMES = ("x.csv", "x_classes.csv", "x_confusion.csv", "x_confusion.png")


def names(files: AnswerFiles) -> tuple[Path, ...]:
    return (files.answers, files.classes, files.matrix, files.picture)


def test_they_stand_beside_each_other_and_older_ones_may_be_there(tmp_path: Path) -> None:
    expected = tuple(tmp_path / name for name in NAMES)
    assert names(AnswerFiles.beside(tmp_path / "x.csv")) == expected
    for path in expected:
        path.write_text("older")
    files = AnswerFiles.beside(tmp_path / "x.csv")
    assert names(files) == expected
    files.refuse_inputs({"an input image": [tmp_path / "a.png", tmp_path / "gone.png"]})


@pytest.mark.parametrize("name", ["a.safetensors", "photo.jpg", "x.csv.gz", "x", "csv"])
def test_a_name_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    said = f"{name} came as a file of answers; allowed: a name that ends in .csv, or -"
    with pytest.raises(InvalidValueError, match=re.escape(said)):
        AnswerFiles.beside(tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_regular_file_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make = os.mkfifo if kind == "fifo" else os.mkdir
    make(path)
    (tmp_path / "link.csv").symlink_to(path)
    with pytest.raises(FileAccessError, match=f"{name} is there and no regular file"):
        AnswerFiles.beside(tmp_path / "x.csv")
    with pytest.raises(FileAccessError, match="link.csv is there and no regular file"):
        AnswerFiles.beside(tmp_path / "link.csv")


@pytest.mark.parametrize("name", NAMES)
def test_a_link_is_followed(name: str, tmp_path: Path) -> None:
    target = tmp_path / f"elsewhere{Path(name).suffix}"
    (tmp_path / name).symlink_to(target)
    found = names(AnswerFiles.beside(tmp_path / "x.csv"))
    assert found[NAMES.index(name)] == target
    assert sum(path == target for path in found) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_link_to_another_kind_of_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(tmp_path / "a.safetensors")
    with pytest.raises(InvalidValueError, match="a.safetensors came as a file of answers"):
        AnswerFiles.beside(tmp_path / "x.csv")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["itself", "link", "hard link"])
def test_what_is_read_is_not_replaced(how: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("mine")
    read = path if how == "itself" else tmp_path / "another name"
    if how == "link":
        read.symlink_to(path)
    elif how == "hard link":
        read.hardlink_to(path)
    files = AnswerFiles.beside(tmp_path / "x.csv")
    said = f"{name} would be replaced, and is the file of labels. Give another"
    with pytest.raises(InvalidValueError, match=said):
        files.refuse_inputs({"the adapter": [tmp_path], "the file of labels": [read]})
