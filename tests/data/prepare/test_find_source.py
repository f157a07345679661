"""A folder or a zip file is read in place, and never anything outside of it."""

import shutil
import zipfile
from pathlib import Path

import pictures
import pytest
from small_tasks import DTD, LISTS

from san.data.prepare.sources import find_source
from san.data.prepare.sources.files import inside, open_root


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "v" / "dtd", LISTS, 47)
    shutil.make_archive(str(tmp_path / "v"), "zip", tmp_path / "v")
    (tmp_path / "v.zip").write_bytes((tmp_path / "v.zip").read_bytes()[:3000])
    with pytest.raises(ValueError, match="v.zip is no folder and no whole zip file"):
        find_source(DTD[1], tmp_path / "v.zip")


def test_a_zip_that_would_climb_out_is_read_in_place(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../escaped.txt", "x")
        for name, count in LISTS.items():
            archive.writestr(f"dtd/{name}.txt", "../../escaped.txt 0\n" * count)
    with pytest.raises(ValueError, match="points out of"):
        find_source(DTD[1], tmp_path / "evil.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.zip"]


def test_nothing_there_lists_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match="Nothing of vtab/dtd is at(.|\n)*train800.txt(.|\n)*TFDS data folder",
    ):
        find_source(DTD[1], tmp_path)
    with pytest.raises(
        FileNotFoundError, match="does not exist; a folder or a .zip file is allowed"
    ):
        open_root(tmp_path / "nix")
    for name in ("a/../../b", "a\\..\\..\\b", "C:\\b", "/b"):
        with pytest.raises(ValueError, match="points out of"):
            inside(tmp_path, name)
    assert inside(tmp_path, "a/2020:01.png") == tmp_path / "a" / "2020:01.png"
