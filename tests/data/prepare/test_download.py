"""A task that cannot be prepared says why, and leaves the others alone."""

from pathlib import Path

import pictures
import pytest
from small_tasks import DTD, FGVC, GIC, LISTS

from san.data.prepare import steps as steps_module
from san.data.prepare.download import prepare_all
from san.data.prepare.sources import Source, find_source, tfds
from san.data.prepare.steps import Paths, plan_steps
from san.errors import MissingPackageError
from san.tasks import Task


def paths_below(root: Path, user_path: Path | None = None) -> Paths:
    return Paths(root, root / "tfds", root / "manual", user_path)


def test_a_build_that_fails_lists_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, root: Path, manual: Path) -> None:
        raise RuntimeError("Name or service not known\nand more")

    monkeypatch.setattr(tfds, "build", fail)
    monkeypatch.setattr(tfds, "file_names", lambda name: ["cars_train.tgz", "cars_test.tgz"])
    tasks = [(FGVC, FGVC.task("stanford_cars")), (FGVC, FGVC.task("nabirds"))]
    paths = paths_below(tmp_path)
    errors = prepare_all(plan_steps(tasks, paths, None, 224), paths, 224)
    assert len(errors) == 2
    for text in (
        "RuntimeError: Name or service not known)",
        "a prepared copy",
        "TFDS's download of cars196",
        "put cars_train.tgz, cars_test.tgz",
        "--from",
    ):
        assert text in errors[0]
    assert "nabirds.tar.gz" in errors[1]


def test_what_to_install_is_said_where_tfds_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, root: Path, manual: Path) -> None:
        raise MissingPackageError("no TFDS here")

    monkeypatch.setattr(tfds, "build", fail)
    paths = paths_below(tmp_path)
    tasks = [(FGVC, FGVC.task("stanford_cars"))]
    (error,) = prepare_all(plan_steps(tasks, paths, None, 224), paths, 224)
    assert error.startswith("fgvc/stanford_cars: no TFDS here (pip install -e '.[prepare]'")


def test_one_damaged_source_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(task: Task, path: Path) -> Source:
        if task.name == "imagenet":
            raise KeyError("a layout nobody thought of")
        return find_source(task, path)

    monkeypatch.setattr(steps_module, "find_source", broken)
    pictures.vtab_lists(tmp_path / "dtd", LISTS, 47)
    tasks = [(GIC, GIC.task("imagenet")), (DTD.suite, DTD.task)]
    paths = paths_below(tmp_path / "data", user_path=tmp_path)
    said: list[str] = []
    steps = plan_steps(tasks, paths, None, 8)
    errors = prepare_all(steps, paths, 8, say=said.append)
    assert errors == ["gic/imagenet: KeyError: 'a layout nobody thought of'"]
    assert said == ["small/dtd: train: 8 images; val: 4 images; test: 6 images"]
    assert "in broken" in caplog.text  # the trace of what is a bug
