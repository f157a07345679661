"""Which values of a column are the best, and which cannot be told apart from the best."""

from collections.abc import Sequence
from enum import Enum, auto

from san.report.compare import holm, smallest_wilcoxon_p, wilcoxon_p
from san.report.means import (
    Column,
    accuracy_columns,
    goodness,
    mean_columns,
    task_column,
    tasks_of_mean,
)
from san.report.rows import Row
from san.report.standings import LEVEL, main_class
from san.report.value import Value
from san.report.within_task import compare_cells
from san.tasks import Suite


class Emphasis(Enum):
    """How a value stands to the best one of its column."""

    NONE = auto()
    NOT_TOLD_APART = auto()  # from the best, at 5 %
    BEST = auto()
    BEST_UNTESTED = auto()  # with so few tasks no test could tell any row apart


def emphasize(
    suite: Suite,
    rows: Sequence[Row],
) -> dict[tuple[int, Column], Emphasis]:
    """Return, by index of row and column, the values that are the best or not told apart from it.

    Within a task, values are compared by their test images and seeds; means by a Wilcoxon
    signed-rank test over their tasks. Both are adjusted by Holm for the rows of the column.
    Baselines and values that are not compared take no part; nor do rows of another comparison class
    than most.
    """
    taking_part = _of_the_main_class(rows)
    found = {}
    for column in accuracy_columns(suite):
        for index, emphasis in _emphasize_column(suite, rows, taking_part, column).items():
            found[index, column] = emphasis
    return found


def _of_the_main_class(rows: Sequence[Row]) -> list[int]:
    """Return the indices of the rows that are ranked."""
    main = main_class(rows)
    return [
        index
        for index, row in enumerate(rows)
        if not row.is_baseline and row.comparison_class == main
    ]


def _emphasize_column(
    suite: Suite, rows: Sequence[Row], indices: Sequence[int], column: Column
) -> dict[int, Emphasis]:
    """Return the emphasis of a column by the index of the row."""
    columns = _columns_behind(suite, column)
    candidates = [index for index in indices if _is_whole(rows[index], [column, *columns])]
    if len(candidates) < 2:
        return {}
    best = max(candidates, key=lambda index: goodness(column, rows[index].values[column].mean))
    others = [index for index in candidates if index != best]
    is_mean = len(columns) > 1  # that of a single task is the task
    if is_mean and smallest_wilcoxon_p(len(columns)) * len(others) >= LEVEL:
        return {
            index: Emphasis.BEST_UNTESTED for index in _level_with(rows, candidates, best, column)
        }
    p_values = []
    for index in others:
        pairs = [(rows[best].values[each], rows[index].values[each]) for each in columns]
        p_values.append(_p_value(pairs, is_mean=is_mean))
    found = {best: Emphasis.BEST}
    best_mean = rows[best].values[column].mean
    for index, p in zip(others, holm(p_values), strict=True):
        if rows[index].values[column].mean == best_mean:
            found[index] = Emphasis.BEST
        elif p >= LEVEL:
            found[index] = Emphasis.NOT_TOLD_APART
    return found


def _level_with(
    rows: Sequence[Row], candidates: Sequence[int], best: int, column: Column
) -> list[int]:
    """Return which candidates have the best mean."""
    best_mean = rows[best].values[column].mean
    return [index for index in candidates if rows[index].values[column].mean == best_mean]


def _columns_behind(suite: Suite, column: Column) -> list[Column]:
    """Return the columns of the tasks of a mean; of a task its own."""
    if column not in mean_columns(suite):
        return [column]
    return [task_column(suite.tasks[task]) for task in tasks_of_mean(suite, column)]


def _is_whole(row: Row, columns: Sequence[Column]) -> bool:
    """Return whether all of these values are there, and may be compared."""
    values = [row.values[column] for column in columns]
    return all(value.exists and value.is_compared for value in values)


def _p_value(pairs: Sequence[tuple[Value, Value]], is_mean: bool) -> float:
    """Return the p-value of the difference of two values of a column."""
    if is_mean:
        accuracies = [(best.mean, other.mean) for best, other in pairs]
        return wilcoxon_p(*zip(*accuracies, strict=True))
    ((best, other),) = pairs
    if best.runs is None or other.runs is None:
        return 1.0
    return compare_cells(best.runs, other.runs).p
