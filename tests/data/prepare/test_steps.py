"""The plan of what has to happen for each task, and the disk that it takes."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pictures
import pytest
from small_tasks import LISTS

from san.data.prepare.steps import (
    Action,
    DiskNeed,
    Paths,
    check_disk,
    disk_need,
    plan_steps,
)
from san.errors import FileAccessError, MissingFileError
from san.tasks import select_tasks


def paths_below(root: Path, user_path: Path | None = None) -> Paths:
    return Paths(root, root / "tfds", root / "manual", user_path)


def test_the_plan_says_what_is_there_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = paths_below(tmp_path)
    steps = plan_steps(select_tasks(["vtab", "fgvc/nabirds"]), paths, "vtab", 224)
    asked = {step.name: step.note for step in steps if step.action is Action.MANUAL}
    assert asked.keys() == {"vtab/resisc45", "vtab/diabetic_retinopathy", "fgvc/nabirds"}
    assert "NWPU-RESISC45" in asked["vtab/resisc45"]
    assert str(tmp_path / "manual" / "resisc45") in asked["vtab/resisc45"]

    need = disk_need(steps, 224)
    # clevr, dsprites and smallnorb count once.
    assert need.download == pytest.approx(85.8e9, rel=0.01)
    assert need.tfds == pytest.approx(3 * need.download)
    assert 15e9 < need.packed < 40e9
    assert need.unknown == []

    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))
    disk = check_disk(steps, paths, 224)
    text = r"8\d\.\d GB to download, at most 2\d\d\.\d GB of disk, 1\.0 GB free"
    assert re.fullmatch(text, disk.text)
    assert not disk.is_enough
    with pytest.raises(FileAccessError, match=f"Not enough disk: {text}. Prepare fewer tasks"):
        disk.require()

    with caplog.at_level("WARNING"):
        disk.require(force=True)  # what is forced may be smaller than the benchmark
    assert "Not enough disk" in caplog.text


def test_the_disk_is_enough_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = paths_below(tmp_path / "not" / "there")
    steps = plan_steps(select_tasks(["vtab/cifar"]), paths, None, 224)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**12))
    check_disk(steps, paths, 224).require()


def test_root_and_tfds_share_one_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = paths_below(tmp_path)
    steps = plan_steps(select_tasks(["vtab/cifar"]), paths, None, 224)
    need = disk_need(steps, 224)
    for free, is_enough in ((need.tfds + need.packed, True), (need.tfds + need.packed - 1, False)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        assert check_disk(steps, paths, 224).is_enough is is_enough


def test_sizes_of_files_that_are_kept(tmp_path: Path) -> None:
    paths = paths_below(tmp_path, user_path=tmp_path)
    names = ["gic/imagenet", "fgvc/nabirds", "robustness/imagenet_c_frost"]
    planned = plan_steps(select_tasks(names), paths, None, 224)
    assert [step.resize for step in planned] == ["crop_248", "crop_256", "crop_248"]
    steps = [replace(step, action=Action.PACK) for step in planned]
    unknown = ["fgvc/nabirds", "robustness/imagenet_c_frost"]
    assert disk_need(steps, 224) == DiskNeed(0, 0, 145 * 10**9, unknown)
    text = check_disk(steps, paths, 224).text
    assert "the files of fgvc/nabirds, robustness/imagenet_c_frost" in text


def test_the_demo_needs_nothing(tmp_path: Path) -> None:
    (step,) = plan_steps(select_tasks(["demo/digits"]), paths_below(tmp_path), None, 224)
    assert step.action is Action.DONE
    assert step.note == "is drawn where it is needed"


def test_the_plan_of_a_user_s_files_says_what_is_not_there(tmp_path: Path) -> None:
    pictures.vtab_lists(tmp_path / "vtab-1k" / "dtd", LISTS, 47)
    paths = paths_below(tmp_path, user_path=tmp_path / "vtab-1k")
    steps = plan_steps(select_tasks(["vtab/dtd", "vtab/svhn"]), paths, None, 224)
    actions = {step.name: step.action for step in steps}
    assert actions == {"vtab/dtd": Action.PACK, "vtab/svhn": Action.MANUAL}
    assert "nothing of it is at" in steps[1].note


def test_a_user_s_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    paths = paths_below(tmp_path, user_path=tmp_path / "nix")
    with pytest.raises(MissingFileError, match="does not exist"):
        plan_steps(select_tasks(["vtab/dtd"]), paths, None, 224)
