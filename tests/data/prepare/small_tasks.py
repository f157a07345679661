"""Tasks with a few images, for tests of how they are prepared."""

from dataclasses import replace
from pathlib import Path

import pytest

from san.data import verify
from san.data.layout import packed_dir
from san.data.prepare.pack_task import pack_splits
from san.data.prepare.sources import find_source
from san.tasks import Suite, Task, load_suite

VTAB, FGVC, GIC = (load_suite(name) for name in ("vtab", "fgvc", "gic"))


ROOT = Path(__file__).parents[3]


LISTS = {"train800": 8, "val200": 4, "test": 6}


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small tasks of these tests need not have images of all classes."""
    monkeypatch.setattr(verify, "UNBALANCED", ("vtab", "fgvc", "gic", "robustness", "folder"))


def small(task: Task, **sizes: int) -> tuple[Suite, Task]:
    """The task with fewer images, in a suite of its own."""
    task = replace(task, splits=sizes)
    return replace(VTAB, name=task.suite, tasks={task.name: task}), task


def packed(suite: Suite, task: Task, path: Path, root: Path, force: bool = False) -> Path:
    pack_splits(
        suite, task, find_source(task, path), root, "vtab", 8, force, lambda examples, *_: examples
    )
    return packed_dir(task, root, "vtab", 8)


DTD = small(VTAB.task("dtd"), train=8, val=4, test=6)
