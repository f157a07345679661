"""The columns of a table: tasks, and the means over them, of groups and of all.

A mean is NaN where one of its values is missing: none stands over an incomplete row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from san.report.value import Value
from san.report.within_task import Z
from san.tasks import Suite, Task


class Column(NamedTuple):
    """A column of a table: a task below its group, or a mean."""

    group: str
    label: str


MEAN_OF_GROUP = "mean of"
MEAN_OF_TASKS = Column("mean", "all")
MEAN_OF_GROUPS = Column("mean", "groups")
MEAN_CORRUPTION_ERROR = Column("mean", "mCE")
LOWER_IS_BETTER = frozenset({MEAN_CORRUPTION_ERROR})
# What suites call their means.
_MEANS = {
    "mean of all tasks": MEAN_OF_TASKS,
    "mean of groups": MEAN_OF_GROUPS,
    "mean corruption error": MEAN_CORRUPTION_ERROR,
}


def goodness(column: Column, mean: float) -> float:
    """Return a mean so that more is better: of the corruption error, the negative."""
    return -mean if column in LOWER_IS_BETTER else mean


def task_column(task: Task) -> Column:
    """Return the column of a task."""
    return Column(task.group, task.label)


def mean_columns(suite: Suite) -> dict[Column, str]:
    """Return the columns of means, and what each is: of each group, if several, and of all."""
    columns = {}
    if len(suite.groups) > 1:
        columns = {Column(MEAN_OF_GROUP, group): "mean of group" for group in suite.groups}
    for name in suite.means:
        columns[_MEANS[name]] = name
    return columns


def accuracy_columns(suite: Suite) -> list[Column]:
    """Return the columns of accuracies: tasks below their groups, then means."""
    columns = [task_column(task) for task in suite.tasks.values()]
    # A stable sort: within a group tasks keep the order of the suite.
    columns.sort(key=lambda column: suite.groups.index(column.group))
    return [*columns, *mean_columns(suite)]


def interval_of_mean(
    suite: Suite, column: Column, cells: Mapping[str, Value]
) -> tuple[float, float]:
    """Return the 95 % interval of a mean for the test images of its tasks; NaN where unknown.

    Tasks are independent, and their binomial variances add up. It says nothing of seeds, nor of
    other tasks.
    """
    accuracies = {task: cell.mean for task, cell in cells.items()}
    average = table_means(suite, accuracies, {})[column]
    variance = 0.0
    for task, weight in _weights_of_mean(suite, column).items():
        runs = cells[task].runs
        if runs is None:
            return math.nan, math.nan
        share = float(np.mean(runs.shares))
        variance += (100 * weight) ** 2 * share * (1 - share) / runs.total
    half_width = Z * math.sqrt(variance)
    return average - half_width, average + half_width


def mean(values: Sequence[float]) -> float:
    """Return the plain mean; NaN if one of the values is missing or there are none."""
    if not values:
        return math.nan
    return sum(values) / len(values)


def table_means(
    suite: Suite,
    accuracies: Mapping[str, float],
    reported_means: Mapping[str, float],
) -> dict[Column, float]:
    """Return the means of a row by column.

    accuracies: of every task, NaN where missing. reported_means: of groups, used for those whose
    own mean is NaN. A mean is NaN where a value is missing that nothing replaces.
    """
    by_group = _group_means(suite, accuracies, reported_means)
    # A suite of one group may have its mean from a source that does not print all tasks.
    everything = accuracies if len(suite.groups) > 1 else by_group
    means = {Column(MEAN_OF_GROUP, group): value for group, value in by_group.items()}
    means[MEAN_OF_TASKS] = mean(list(everything.values()))
    means[MEAN_OF_GROUPS] = mean(list(by_group.values()))
    means[MEAN_CORRUPTION_ERROR] = _mean_corruption_error(suite, accuracies)
    return {column: means[column] for column in mean_columns(suite)}


def tasks_of_mean(suite: Suite, column: Column) -> list[str]:
    """Return the tasks whose values make up a mean."""
    names = []
    for task in suite.tasks.values():
        in_group = column.group != MEAN_OF_GROUP or task.group == column.label
        has_error = column != MEAN_CORRUPTION_ERROR or task.alexnet_error is not None
        if in_group and has_error:
            names.append(task.name)
    return names


def _weights_of_mean(suite: Suite, column: Column) -> dict[str, float]:
    """Return by how much a mean changes with the accuracy of each of its tasks."""
    tasks = tasks_of_mean(suite, column)
    groups = [task.group for task in suite.tasks.values()]
    weights = dict.fromkeys(tasks, 1 / len(tasks))
    for name in tasks:
        task = suite.tasks[name]
        if column == MEAN_OF_GROUPS:
            weights[name] = 1 / (len(suite.groups) * groups.count(task.group))
        elif column == MEAN_CORRUPTION_ERROR and task.alexnet_error is not None:
            weights[name] /= task.alexnet_error
    return weights


def _group_means(
    suite: Suite,
    accuracies: Mapping[str, float],
    reported_means: Mapping[str, float],
) -> dict[str, float]:
    """Return the mean of each group: computed, else as reported, else NaN."""
    by_group: dict[str, list[float]] = {group: [] for group in suite.groups}
    for name, accuracy in accuracies.items():
        by_group[suite.tasks[name].group].append(accuracy)
    means = {group: mean(values) for group, values in by_group.items()}
    for group, reported in reported_means.items():
        if math.isnan(means[group]):
            means[group] = reported
    return means


def _mean_corruption_error(suite: Suite, accuracies: Mapping[str, float]) -> float:
    """Return the mean error relative to AlexNet's, in percent (Hendrycks and Dietterich 2019)."""
    relative_errors = []
    for name, accuracy in accuracies.items():
        alexnet_error = suite.tasks[name].alexnet_error
        if alexnet_error is not None:
            relative_errors.append((100 - accuracy) / alexnet_error)
    return mean(relative_errors)
