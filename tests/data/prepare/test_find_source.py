"""A folder or a zip file is read in place, and never anything outside of it."""

import shutil
import zipfile
from pathlib import Path

import pictures
import pytest
from small_tasks import DTD, LISTS

from san.data.prepare.sources import LAYOUTS, find_source
from san.data.prepare.sources.files import inside
from san.errors import DataError, MissingFileError


def test_a_truncated_zip_is_named(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "v" / "dtd", LISTS, 47)
    archive = Path(shutil.make_archive(str(tmp_path / "v"), "zip", tmp_path / "v"))
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(DataError, match="v.zip is not a directory and not a complete zip file"):
        find_source(DTD.task, archive)


def test_a_zip_that_would_climb_out_is_read_in_place(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../escaped.txt", "x")
        for name, count in LISTS.items():
            archive.writestr(f"dtd/{name}.txt", "../../escaped.txt 0\n" * count)
    with pytest.raises(DataError, match="points out of"):
        find_source(DTD.task, tmp_path / "evil.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]


def test_nothing_there_lists_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="Nothing of small/dtd is at") as caught:
        find_source(DTD.task, tmp_path)
    assert len(LAYOUTS) == 5
    for layout in LAYOUTS:
        assert layout in str(caught.value)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    allowed = "does not exist; a folder or a .zip file is allowed"
    with pytest.raises(MissingFileError, match=allowed):
        find_source(DTD.task, tmp_path / "nix")


@pytest.mark.parametrize("name", ["a/../../b", "a\\..\\..\\b", "C:\\b", "/b"])
def test_names_that_point_out_of_a_root_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="points out of"):
        inside(tmp_path, name)


def test_a_colon_in_a_name_is_allowed(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/2020:01.png") == tmp_path / "a" / "2020:01.png"
