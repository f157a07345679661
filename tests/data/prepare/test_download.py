"""A task that cannot be prepared says why, and leaves the others alone."""

from pathlib import Path
from typing import Any

import pictures
import pytest
from small_tasks import DTD, FGVC, GIC, LISTS

from san.data.prepare import download
from san.data.prepare.sources import tfds
from san.tasks import Task


def test_a_build_that_fails_lists_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, root: Path, manual: Path) -> None:
        raise RuntimeError("Name or service not known\nand more")

    monkeypatch.setattr(tfds, "build", fail)
    monkeypatch.setattr(tfds, "file_names", lambda name: ["cars_train.tgz", "cars_test.tgz"])
    pairs = [(FGVC, FGVC.task("stanford_cars")), (FGVC, FGVC.task("nabirds"))]
    places = download.Paths(tmp_path, tmp_path / "tfds", tmp_path / "manual")
    steps = download.plan(pairs, places, None, 224)
    errors = download.prepare_all(steps, places, 224, False, 1, lambda e, *_: e, print)
    assert len(errors) == 2
    for text in (
        "RuntimeError: Name or service",
        "a prepared copy",
        "TFDS's download of cars196",
        "put cars_train.tgz, cars_test.tgz",
        "--from",
    ):
        assert text in errors[0]
    assert "nabirds.tar.gz" in errors[1]


def test_one_damaged_source_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(GIC, GIC.task("imagenet")), DTD]
    pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    places = download.Paths(
        tmp_path / "data", tmp_path / "tfds", tmp_path / "manual", given=tmp_path
    )
    find_it = download.find

    def broken(task: Task, path: Path) -> Any:
        if task.name == "imagenet":
            raise KeyError("a layout nobody thought of")
        return find_it(task, path)

    monkeypatch.setattr(download, "find", broken)
    said: list[str] = []
    steps = download.plan(pairs, places, None, 8)
    errors = download.prepare_all(steps, places, 8, False, 1, lambda e, *_: e, said.append)
    assert errors == ["gic/imagenet: KeyError: 'a layout nobody thought of'"]
    assert said == ["vtab/dtd: train: 8 images; val: 4 images; test: 6 images"]
