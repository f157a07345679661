"""Rows of `benchmarks/*.yaml` as frozen tasks: the one place where a task's facts stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from san.errors import choose

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@dataclass(frozen=True)
class Task:
    """One column of a table.

    splits: images in each (`train`, `val`, `test`); other split names are sums (`train+val`), of which the parts that
    a task does not have are left out.
    classes: their names in label order (their numbers, where nobody has named them); the head's size is their number.
    storage: `array` packs decoded images of one size, `encoded` the files as they are, for random crops.
    facts: where the images come from, how they are proved, licence, quirks (benchmarks/vtab.yaml explains the keys).
    """

    suite: str
    name: str
    label: str
    group: str
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    storage: str = "array"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def parts(self, split: str) -> list[str]:
        """Return the stored splits that `split` (a name, or names joined by `+`) is the sum of.

        Raises LookupError with the nearest names where there is no such split.
        """
        parts = split.split("+")
        for part in parts:
            known = list(self.splits) if len(parts) == 1 else [*self.splits, "val"]
            choose(part, known, f"split of {self.suite}/{self.name}")
        return [part for part in parts if part in self.splits]

    def size(self, split: str) -> int:
        """Return how many images `split` must have."""
        return sum(self.splits[part] for part in self.parts(split))


@dataclass(frozen=True)
class Suite:
    """A benchmark: its tasks and methods in table order, and the settings that it runs with by default."""

    name: str
    title: str
    backbone: str
    recipe: str
    augment: str
    resize: str
    seed: int
    methods: tuple[str, ...]
    means: tuple[str, ...]
    tasks: Mapping[str, Task]

    @property
    def groups(self) -> list[str]:
        """The groups in table order."""
        return list(dict.fromkeys(task.group for task in self.tasks.values()))

    def task(self, name: str) -> Task:
        """Return the task called `name`; raise LookupError with the nearest names if there is none."""
        return self.tasks[choose(name, self.tasks, f"task of {self.name}")]


def suite_names() -> list[str]:
    """Return the names of all benchmarks, sorted."""
    return sorted(path.stem for path in BENCHMARKS.glob("*.yaml"))


def select_tasks(names: Sequence[str]) -> list[tuple[Suite, Task]]:
    """Return suite and task for names such as `vtab` (all its tasks) and `vtab/cifar`; raise LookupError."""
    pairs = []
    for name in names:
        suite_name, _, task_name = name.partition("/")
        suite = load_suite(suite_name)
        pairs += [(suite, task) for task in ([suite.task(task_name)] if task_name else suite.tasks.values())]
    return pairs


@cache
def load_suite(name: str) -> Suite:
    """Read `benchmarks/<name>.yaml`; raise LookupError with the nearest names if there is none."""
    choose(name, suite_names(), "suite")
    rows = yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text())
    tasks = {key: read_task(name, key, row, rows) for key, row in rows["tasks"].items()}
    settings = {key: rows[key] for key in ("title", "backbone", "recipe", "augment", "resize", "seed")}
    return Suite(name, tasks=tasks, methods=tuple(rows["methods"]), means=tuple(rows["means"]), **settings)


def read_task(suite: str, name: str, row: Mapping[str, Any], rows: Mapping[str, Any]) -> Task:
    """Turn a row into a Task; what it does not say is the suite's."""
    facts = {k: v for k, v in row.items() if k not in ("label", "group", "classes", "splits", "storage")}
    return Task(
        suite,
        name,
        row["label"],
        row["group"],
        class_names(row["classes"]),
        {**rows.get("splits", {}), **row.get("splits", {})},
        row.get("storage", rows.get("storage", "array")),
        facts,
    )


def class_names(classes: list[str] | str | int) -> tuple[str, ...]:
    """Return class names in label order, as listed, from `benchmarks/classes/<classes>.txt`, or numbers."""
    if isinstance(classes, int):
        return tuple(map(str, range(classes)))
    if isinstance(classes, str):
        return tuple((BENCHMARKS / "classes" / f"{classes}.txt").read_text().splitlines())
    return tuple(map(str, classes))
