"""What a person means who names a suite, a column or a row: keys, or what tables print."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from san.errors import choose
from san.report.means import (
    MEAN_OF_GROUP,
    MEAN_OF_GROUPS,
    MEAN_OF_TASKS,
    Column,
    mean_columns,
    task_column,
)
from san.report.published import MEAN_OF_GROUPS as STATED_MEAN_OF_GROUPS
from san.report.published import MEAN_OF_TASKS as STATED_MEAN_OF_TASKS
from san.report.published import UNSPECIFIED_MEAN
from san.report.standings import main_column
from san.report.value import Flag
from san.tasks import Suite, Task, load_suite, suite_names

_WITHOUT_MARKS = str.maketrans(dict.fromkeys((flag.mark for flag in Flag), ""))
_STATED_AS = {MEAN_OF_TASKS: STATED_MEAN_OF_TASKS, MEAN_OF_GROUPS: STATED_MEAN_OF_GROUPS}


@dataclass(frozen=True)
class Place:
    """A column of a suite's tables. task: None of a mean."""

    suite: Suite
    column: Column
    task: Task | None = None

    @property
    def title(self) -> str:
        """What is printed: `vtab/cifar`; of a mean `vtab, mean of natural`."""
        if self.task is not None:
            return f"{self.suite.name}/{self.task.name}"
        return f"{self.suite.name}, {_title_of_mean(self.suite, self.column)}"

    def holds(self, published_task: str) -> bool:
        """Return whether a published number belongs here, by the task that its file says.

        `cifar:augmented` is a variant of `cifar`; a mean of which nobody says what it is the mean
        of may be either of the means over all tasks.
        """
        if self.task is not None:
            return published_task.partition(":")[0] == self.task.name
        if self.column.group == MEAN_OF_GROUP:
            return published_task == self.column.label
        of_one_group = self.suite.groups if len(self.suite.groups) == 1 else []
        stated_as = _STATED_AS.get(self.column)
        return published_task in (stated_as, UNSPECIFIED_MEAN, *of_one_group)


def find_suite(name: str) -> Suite:
    """Return a suite by its name or by the title of one of its tables.

    Raises UnknownNameError with the nearest names.
    """
    title = name.partition(", ")[0]  # what follows is another backbone, or a split
    for each in suite_names():
        suite = load_suite(each)
        if title.casefold() in (suite.name.casefold(), suite.title.casefold()):
            return suite
    return load_suite(title)  # which names the nearest


def find_place(suite: Suite, name: str) -> Place:
    """Return a column by the name or label of a task, or by what a mean is called.

    Raises UnknownNameError with the nearest names.
    """
    places: dict[str, Place] = {}
    for task in suite.tasks.values():
        for each in (task.name, task.label):
            places.setdefault(each, Place(suite, task_column(task), task))
    for each, column in _names_of_means(suite):
        places.setdefault(each, Place(suite, column))
    return places[_find(name, places, f"task of {suite.name}")]


def find_row(name: str, known: Collection[str]) -> str:
    """Return the name of a method or row as it is spelt, with marks or without them.

    `ssf - SSF`, a row of differences, stands for its first. Raises UnknownNameError with the
    nearest names.
    """
    plain = name.translate(_WITHOUT_MARKS).strip()
    for each in (name, plain):
        if each in known:
            return each
    ours, minus, _ = plain.partition(" - ")
    if minus and ours in known:
        return ours
    return _find(plain, known, "method or row")


def _find(name: str, known: Collection[str] | Mapping[str, Place], what: str) -> str:
    """Return a name as it is spelt, however it is capitalized."""
    spelt: dict[str, str] = {}
    for each in known:
        spelt.setdefault(each.casefold(), each)
    return choose(spelt.get(name.casefold(), name), list(spelt.values()), what)


def _names_of_means(suite: Suite) -> Iterator[tuple[str, Column]]:
    """Yield what means are called: in tables of every format, in files, and in short."""
    yield "mean", main_column(suite)
    for column, statistic in mean_columns(suite).items():
        if column.group == MEAN_OF_GROUP:
            yield column.label, column
            yield suite.group_labels.get(column.label, column.label), column
        yield _title_of_mean(suite, column), column
        if column.group != MEAN_OF_GROUP:
            # `mean of all tasks` is `all` below `mean` in one table, and `All tasks` in another.
            yield f"mean {column.label}", column
            yield column.label, column
            yield statistic.removeprefix("mean of "), column
            yield statistic.removeprefix("mean "), column
        if column in _STATED_AS:
            yield _STATED_AS[column], column


def _title_of_mean(suite: Suite, column: Column) -> str:
    if column.group == MEAN_OF_GROUP:
        return f"{MEAN_OF_GROUP} {column.label}"
    return mean_columns(suite)[column]
