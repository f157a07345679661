"""From the runs of a cell to its value, and from the cells of a row to its means."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from san.record import Record, Status
from san.report.value import CellStatus, Flag, TrainableCounts, Value
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
# The columns behind those of accuracies: trained parameters and seeds.
TRAINABLE_COLUMNS = [Column("trainable", "without head"), Column("trainable", "with head")]
SUMMARY_COLUMNS = [*TRAINABLE_COLUMNS, Column("runs", "seeds")]
# What suites call their means.
_MEANS = {
    "mean of all tasks": MEAN_OF_TASKS,
    "mean of groups": MEAN_OF_GROUPS,
    "mean corruption error": MEAN_CORRUPTION_ERROR,
}
_FAILURES = {
    frozenset({Status.FAILED}): CellStatus.FAILED,
    frozenset({Status.OOM}): CellStatus.OOM,
    frozenset({Status.OOM, Status.FAILED}): CellStatus.OOM_AND_FAILED,
}


def task_column(task: Task) -> Column:
    """Return the column of a task."""
    return Column(task.group, task.label)


def _mean_columns(suite: Suite) -> list[Column]:
    """Return the columns of means: of each group, where there are several, and of all."""
    columns = []
    if len(suite.groups) > 1:
        columns += [Column(MEAN_OF_GROUP, group) for group in suite.groups]
    columns += [_MEANS[name] for name in suite.means]
    return columns


def accuracy_columns(suite: Suite) -> list[Column]:
    """Return the columns of accuracies: tasks below their groups, then means."""
    columns = [task_column(task) for task in suite.tasks.values()]
    # A stable sort: within a group tasks keep the order of the suite.
    columns.sort(key=lambda column: suite.groups.index(column.group))
    return columns + _mean_columns(suite)


def aggregate_runs(runs: Sequence[Record]) -> Value:
    """Return the accuracy of a cell from its runs, without copies of one another."""
    newest = _newest_of_each_seed(runs)
    accuracies = [r.accuracy for r in _done(newest)]
    return Value(
        mean=mean(accuracies),
        std=_standard_deviation(accuracies),
        n=len(accuracies),
        status=_cell_status(newest),
        flags=_cell_flags(runs, newest),
    )


def aggregate_trainable(runs: Sequence[Record]) -> TrainableCounts:
    """Return the mean numbers of trained parameters over the seeds of a cell that are done."""
    without_head = []
    with_head = []
    for r in _done(_newest_of_each_seed(runs)):
        assert r.params is not None  # a record that is done has them
        without_head.append(r.params.trainable - r.params.head)
        with_head.append(r.params.trainable)
    return TrainableCounts(mean(without_head), mean(with_head))


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
    return {column: means[column] for column in _mean_columns(suite)}


def _newest_of_each_seed(runs: Sequence[Record]) -> list[Record]:
    """Return one run for each seed: of several the newest, and one that is done before others."""
    newest: dict[int, Record] = {}
    for r in sorted(runs, key=_precedence):
        newest[r.seed] = r
    return list(newest.values())


def _precedence(r: Record) -> tuple[bool, str]:
    is_done = r.status == Status.DONE
    return (is_done, r.created)


def _done(runs: Sequence[Record]) -> list[Record]:
    return [r for r in runs if r.status == Status.DONE]


def _standard_deviation(accuracies: Sequence[float]) -> float:
    """Return the sample standard deviation; NaN for fewer than two seeds."""
    if len(accuracies) < 2:
        return math.nan
    return statistics.stdev(accuracies)


def _cell_status(newest: Sequence[Record]) -> CellStatus:
    if not newest:
        return CellStatus.MISSING
    failures = {r.status for r in newest} - {Status.DONE}
    return _FAILURES.get(frozenset(failures), CellStatus.DONE)


def _cell_flags(runs: Sequence[Record], newest: Sequence[Record]) -> frozenset[Flag]:
    flags = set()
    for r in newest:
        if r.selected_on != "last":
            flags.add(Flag.CHOSEN_ON_TEST)
    for r in _done(newest):
        if r.data.forced:
            flags.add(Flag.UNVERIFIED_DATA)
    if len(runs) > len(newest):
        flags.add(Flag.CONFLICT)
    return frozenset(flags)


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
