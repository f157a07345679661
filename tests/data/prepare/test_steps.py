"""The plan of what has to happen for each task, and the disk that it takes."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pictures
import pytest
from small_tasks import LISTS

from san.data.prepare import download
from san.tasks import select_tasks


def test_the_plan_says_what_is_there_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = download.Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual")
    pairs = select_tasks(["vtab", "fgvc/nabirds"])
    steps = download.plan(pairs, places, "vtab", 224)
    asked = {s.name: s.note for s in steps if s.action == "ask"}
    assert asked.keys() == {"vtab/resisc45", "vtab/diabetic_retinopathy", "fgvc/nabirds"}
    assert "NWPU-RESISC45" in asked["vtab/resisc45"]
    assert str(tmp_path / "manual" / "resisc45") in asked["vtab/resisc45"]
    fetched, copies, packed, unknown = download.needed_bytes(steps, 224)
    assert fetched == pytest.approx(85.8e9, rel=0.01)  # clevr, dsprites and smallnorb count once
    assert copies == pytest.approx(3 * fetched)
    assert 15e9 < packed < 40e9
    assert unknown == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))
    line, room = download.check_disk(steps, places, 224)
    assert re.fullmatch(r"8\d\.\d GB to download, at most 2\d\d\.\d GB of disk, 1\.0 GB free", line)
    assert not room


def test_sizes_of_files_that_are_kept(tmp_path: Path) -> None:
    places = download.Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual", given=tmp_path)
    steps = download.plan(
        select_tasks(["gic/imagenet", "fgvc/nabirds", "robustness/imagenet_c_frost"]),
        places,
        None,
        224,
    )
    assert [s.resize for s in steps] == ["crop_248", "crop_256", "crop_248"]
    steps = [replace(s, action="pack") for s in steps]
    assert download.needed_bytes(steps, 224) == (
        0,
        0,
        145 * 10**9,
        ["fgvc/nabirds", "robustness/imagenet_c_frost"],
    )
    assert (
        "the files of fgvc/nabirds, robustness/imagenet_c_frost"
        in download.check_disk(steps, places, 224)[0]
    )
    (demo,) = download.plan(select_tasks(["demo/digits"]), places, None, 224)
    assert (demo.action, demo.note) == ("done", "is drawn where it is needed")


def test_the_plan_of_what_is_given_says_what_is_not_there(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "vtab-1k" / "dtd", LISTS, 47)
    places = download.Paths(
        tmp_path, tmp_path / "tfds", tmp_path / "manual", given=tmp_path / "vtab-1k"
    )
    steps = download.plan(select_tasks(["vtab/dtd", "vtab/svhn"]), places, None, 224)
    assert [(s.action, s.name) for s in steps] == [("pack", "vtab/dtd"), ("ask", "vtab/svhn")]
    assert "nothing of it is at" in steps[1].note
    with pytest.raises(FileNotFoundError, match="does not exist"):
        download.plan(
            select_tasks(["vtab/dtd"]), replace(places, given=tmp_path / "nix"), None, 224
        )
