"""Rows of `benchmarks/*.yaml` as frozen tasks: the one place where a task's facts stand."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@dataclass(frozen=True)
class Task:
    """One column of a table.

    splits: images in `train`, `val` and `test`; the other split names are sums (`train+val`).
    classes: their names in label order; the head's size is their number.
    """

    suite: str
    name: str
    label: str
    group: str
    classes: tuple[str, ...]
    splits: Mapping[str, int]

    def size(self, split: str) -> int:
        """Return how many images `split` (a name, or names joined by `+`) must have."""
        return sum(self.splits[lookup(part, self.splits, "split")] for part in split.split("+"))


@dataclass(frozen=True)
class Suite:
    """A benchmark: its tasks and methods in table order, the backbone and recipe that it runs with by default."""

    name: str
    title: str
    backbone: str
    recipe: str
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
        return self.tasks[lookup(name, self.tasks, f"task of {self.name}")]


def lookup(name: str, known: Collection[str], what: str) -> str:
    """Return `name` if it is known; raise LookupError that says what came, what is near and what is allowed."""
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise LookupError(f"Unknown {what} '{name}'.{hint} Allowed: {', '.join(known) or 'none'}.")


def suite_names() -> list[str]:
    """Return the names of all benchmarks, sorted."""
    return sorted(path.stem for path in BENCHMARKS.glob("*.yaml"))


@cache
def load_suite(name: str) -> Suite:
    """Read `benchmarks/<name>.yaml`; raise LookupError with the nearest names if there is none."""
    lookup(name, suite_names(), "suite")
    rows = yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text())
    tasks = {
        key: Task(name, key, row["label"], row["group"], tuple(row["classes"]), row.get("splits", rows["splits"]))
        for key, row in rows["tasks"].items()
    }
    orders = {key: tuple(rows[key]) for key in ("methods", "means")}
    return Suite(name, rows["title"], rows["backbone"], rows["recipe"], rows["seed"], tasks=tasks, **orders)
