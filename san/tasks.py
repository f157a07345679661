"""Suites and tasks: the rows of `benchmarks/*.yaml`, typed. The one place where a fact stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal

import yaml
from msgspec import Meta

from san.errors import InvalidValueError, choose
from san.installation import BENCHMARKS, command
from san.schema import PositiveInt, from_mapping

OWN_IMAGES = "folder"  # the suite of users' own folders, whose tasks no file lists
Storage = Literal["array", "encoded"]
_SHARED = ("splits", "storage", "covers_all_classes")  # a suite may say them for its tasks


@dataclass(frozen=True)
class TfdsSource:
    """How a task is read from TensorFlow Datasets.

    splits: ours, as slices in TFDS's notation.
    major_versions: those that can be read.
    label_rule: a feature, or a rule of `san.data.prepare.labels`.
    id_template: how an image's id is made of features.
    pixel_scale: the factor of stored pixels.
    layout: `official` where the slices are not those of the papers.
    """

    builder: str
    major_versions: tuple[int, ...]
    id_template: str
    splits: Mapping[str, str]
    config: str = ""
    version: str = ""
    label_rule: str = "label"
    pixel_scale: PositiveInt = 1
    layout: Literal["official"] | None = None


@dataclass(frozen=True)
class Task:
    """One column of a table.

    splits: images in each (`train`, `val`, `test`). Other split names are sums (`train+val`), of
        which the parts that a task does not have are left out.
    classes: names in label order (numbers, where nobody has named them); their number is the size
        of the head.
    storage: `array` packs decoded images of one size, `encoded` the files, for random crops.
    native_size: all images are squares of so many pixels, and are stored so.
    ids_digest: 16 digits of the sha256 of the ids of train, then val; None where it is not known.
    official_splits: sizes of the official layout, where it differs from the papers'.
    image_folders, test_folders: where a source may have its images.
    aliases: other names of the task's folder.
    size_gb: of the files, where it is not what is downloaded.
    manual_files, how_to_get: what a person has to bring.
    recipe: where it is not the suite's.
    trained_on: the task whose adapters are tested on this one.
    test_classes: how many classes have test images; predictions are among these.
    alexnet_error: of 1, for the mean corruption error.
    covers_all_classes: whether its images should show every class.
    root: the directory of a user's own images.
    """

    suite: str
    name: str
    label: str
    group: str
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    storage: Storage = "array"
    native_size: PositiveInt | None = None
    ids_digest: str | None = None
    official_splits: Mapping[str, int] | None = None
    image_folders: tuple[str, ...] = ()
    test_folders: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    tfds: TfdsSource | None = None
    download_gb: float = 0
    size_gb: float = 0
    manual_files: tuple[str, ...] = ()
    how_to_get: str = ""
    licence: str = ""
    quirk: str = ""
    recipe: str | None = None
    trained_on: str | None = None
    test_classes: PositiveInt | None = None
    alexnet_error: Annotated[float, Meta(gt=0, le=1)] | None = None
    covers_all_classes: bool = True
    root: str | None = None

    def parts(self, split: str) -> list[str]:
        """Return the stored splits that `split` (a name, or names joined by `+`) is the sum of.

        Raises UnknownNameError with the nearest names where there is no such split.
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
    """A benchmark: its tasks and methods in table order, and its default settings.

    seed: of what is drawn. seeds: of its runs.
    group_labels: how papers write the groups, where they are more than one.
    baselines: methods that are not parameter-efficient: compared with, and not ranked.
    source: `drawn` where the images are made on the spot, `folder` where they are a user's own.
    """

    name: str
    title: str
    backbone: str
    recipe: str
    augment: str
    resize: str
    seed: int
    methods: tuple[str, ...]
    means: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    group_labels: Mapping[str, str] = field(default_factory=dict)
    baselines: tuple[str, ...] = ("full", "linear")
    tasks: Mapping[str, Task] = field(default_factory=dict)
    source: Literal["files", "drawn", "folder"] = "files"

    @property
    def is_own_images(self) -> bool:
        """Whether its tasks are users' own folders, which no file lists."""
        return self.source == "folder"

    @property
    def groups(self) -> list[str]:
        """The groups in table order."""
        return list(dict.fromkeys(task.group for task in self.tasks.values()))

    def task(self, name: str) -> Task:
        """Return the task called `name`.

        Raise UnknownNameError with the nearest names if there is none.
        """
        return self.tasks[choose(name, self.tasks, f"task of {self.name}")]

    def with_tasks(self, tasks: Iterable[Task]) -> "Suite":
        """Return the suite with these tasks alone."""
        return replace(self, tasks={task.name: task for task in tasks})


def suite_names() -> list[str]:
    """Return the names of all benchmarks, sorted."""
    return sorted(path.stem for path in BENCHMARKS.glob("*.yaml"))


def select_tasks(names: Sequence[str]) -> list[tuple[Suite, Task]]:
    """Return suite and task for names such as `vtab` (all its tasks) and `vtab/cifar`.

    Raise UnknownNameError; InvalidValueError where it is that of a user's own images.
    """
    pairs = []
    for name in names:
        suite_name, _, task_name = name.partition("/")
        suite = load_suite(suite_name)
        if suite.is_own_images:
            raise InvalidValueError(
                f"{name} came, but own images need no preparation: the run does it. "
                f"{command('train')} data=folder data.root=FOLDER; or give another suite."
            )
        tasks = [suite.task(task_name)] if task_name else suite.tasks.values()
        pairs += [(suite, task) for task in tasks]
    return pairs


@cache
def known_split_sizes(suite: str, task: str, split: str) -> frozenset[int] | None:
    """Return how many images a split may have: in its papers' layout, or in the official one.

    None where that is not known: of a user's own images, and of a suite or task that is gone.
    """
    if suite not in suite_names() or task not in load_suite(suite).tasks:
        return None
    found = load_suite(suite).tasks[task]
    sizes = set()
    for layout in (found.splits, found.official_splits or {}):
        sizes.add(sum(layout.get(part, 0) for part in split.split("+")))
    return frozenset(sizes - {0})


@cache
def load_suite(name: str) -> Suite:
    """Read `benchmarks/<name>.yaml`.

    Raise UnknownNameError with the nearest names if there is none.
    """
    choose(name, suite_names(), "suite")
    return read_suite(name, yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text("utf-8")))


def read_suite(name: str, rows: Mapping[str, Any]) -> Suite:
    """Turn the rows of a file into a Suite.

    `splits`, `storage` and `covers_all_classes` are each task's that does not say otherwise. Raises
    UnknownNameError on an unknown key (with the nearest), InvalidValueError on a missing key or a
    value of another type.
    """
    facts = dict(rows)
    task_rows = facts.pop("tasks")
    shared = {key: facts.pop(key) for key in _SHARED if key in facts}
    tasks = {key: _read_task(name, key, row, shared) for key, row in task_rows.items()}
    return from_mapping(Suite, {**facts, "name": name, "tasks": tasks}, f"suite {name}")


def _read_task(suite: str, name: str, row: Mapping[str, Any], shared: Mapping[str, Any]) -> Task:
    """Turn a row into a Task; what it does not say is the suite's."""
    where = f"task {suite}/{name}"
    facts = {**shared, **row, "suite": suite, "name": name}
    facts["splits"] = {**shared.get("splits", {}), **row.get("splits", {})}
    facts["classes"] = _class_names(row["classes"])
    if "tfds" in row:
        facts["tfds"] = from_mapping(TfdsSource, row["tfds"], f"{where}, tfds")
    return from_mapping(Task, facts, where)


def _class_names(classes: list[str] | str | int) -> tuple[str, ...]:
    """Return class names in label order, as listed, from `classes/<classes>.txt`, or numbers."""
    if isinstance(classes, int):
        return tuple(map(str, range(classes)))
    if isinstance(classes, str):
        return tuple((BENCHMARKS / "classes" / f"{classes}.txt").read_text("utf-8").splitlines())
    return tuple(map(str, classes))
