"""Rows of benchmarks: typed, and an unknown key is refused with the nearest one."""

from typing import Any

import pytest
import yaml

from san.errors import SanError
from san.installation import BENCHMARKS
from san.tasks import load_suite, read_suite, select_tasks, suite_names


def rows() -> dict[str, Any]:
    return yaml.safe_load((BENCHMARKS / "vtab.yaml").read_text())


def test_every_suite_reads() -> None:
    files = {path.stem for path in BENCHMARKS.glob("*.yaml")}
    assert set(suite_names()) == files
    assert {"demo", "vtab", "fgvc", "gic", "robustness"} <= files
    for name in files:
        suite = load_suite(name)
        raw = yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text())
        assert list(suite.tasks) == list(raw["tasks"])
        for task in suite.tasks.values():
            assert task.classes
            assert task.size("test") > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"natve_size": 32},
            "Unknown key of task vtab/cifar 'natve_size'. Did you mean native_size",
        ),
        ({"native_size": 0}, "task vtab/cifar: native_size came as 0; allowed: `int` >= 1"),
        ({"native_size": "32"}, "native_size came as '32'"),
        ({"splits": {"test": "many"}}, "splits came as"),
        ({"storage": "jpeg"}, "Unknown task vtab/cifar: storage 'jpeg'. Allowed: array, encoded"),
        ({"ids_digest": 5}, "ids_digest came as 5"),
    ],
)
def test_a_row_with_a_mistake_is_refused(change: dict[str, object], message: str) -> None:
    changed = rows()
    changed["tasks"]["cifar"] |= change
    with pytest.raises(SanError, match=message):
        read_suite("vtab", changed)


def test_a_mistake_in_the_tfds_part_or_the_suite_is_refused() -> None:
    changed = rows()
    changed["tasks"]["cifar"]["tfds"]["majors"] = [3]
    with pytest.raises(SanError, match=r"vtab/cifar, tfds 'majors'. Did you mean major_versions"):
        read_suite("vtab", changed)
    changed = rows()
    changed["titel"] = changed.pop("title")
    with pytest.raises(SanError, match=r"Unknown key of suite vtab 'titel'. Did you mean title"):
        read_suite("vtab", changed)
    changed = rows()
    del changed["tasks"]["cifar"]["label"]
    with pytest.raises(SanError, match="task vtab/cifar has no `label`; it is required"):
        read_suite("vtab", changed)


def test_a_suite_says_once_what_holds_for_its_tasks() -> None:
    robustness = load_suite("robustness").tasks.values()
    assert not any(task.covers_all_classes for task in robustness)
    assert {task.storage for task in robustness} == {"encoded"}
    vtab = load_suite("vtab").tasks.values()
    assert all(task.covers_all_classes for task in vtab)
    assert {task.splits["train"] for task in vtab} == {800}


def test_tasks_are_selected_by_name() -> None:
    pairs = select_tasks(["gic", "vtab/cifar"])
    assert [task.name for _, task in pairs] == ["cifar100", "imagenet", "cifar"]
    with pytest.raises(SanError, match="Unknown task of vtab 'cifer'. Did you mean cifar"):
        select_tasks(["vtab/cifer"])
