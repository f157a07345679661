"""How the rows of a table stand to each other: over its tasks, paired, among those of one class."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from san.errors import choose
from san.report.compare import (
    RankComparison,
    RowDifference,
    compare_ranks,
    compare_rows,
    holm,
)
from san.report.means import Column, goodness, mean_columns, task_column, tasks_of_mean
from san.report.rows import DEFAULT_SETTINGS, Row
from san.report.within_task import compare_on_one_task
from san.tasks import Suite

LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Standing:
    """A row that is compared, and its mean over all tasks in percent.

    comparison: the reference minus this row, paired over tasks; None for the reference itself.
    p: of it, adjusted for the number of ranked rows, or of baselines.
    """

    row: Row
    mean: float
    comparison: RowDifference | None = None
    p: float = math.nan

    @property
    def is_told_apart(self) -> bool:
        """Whether the difference from the reference is significant at 5 %."""
        return self.p < LEVEL


@dataclass(frozen=True, eq=False)
class Standings:
    """The rows of one class, compared with a reference.

    reference: the leader, or the row that the user chose; None where no row is complete. ranked:
    the complete rows, best first. baselines: full fine-tuning and linear probing. ranks: over
    tasks, of the ranked rows; None for fewer than three. excluded: the rows that take no part.
    """

    reference: Row | None
    ranked: tuple[Standing, ...] = ()
    baselines: tuple[Standing, ...] = ()
    ranks: RankComparison | None = None
    excluded: tuple[Row, ...] = ()

    @property
    def others(self) -> list[Standing]:
        """The ranked rows but the reference."""
        return [standing for standing in self.ranked if standing.comparison is not None]


def main_class(rows: Sequence[Row]) -> Hashable | None:
    """Return the class of rows that a table is about: the largest, the tuned one of equal ones.

    Baselines have no say; None where no row is ranked.
    """
    sizes: Counter[Hashable] = Counter()
    for row in rows:
        if not row.is_baseline and row.comparison_class is not None:
            sizes[row.comparison_class] += 1
    return max(sizes, key=lambda each: (sizes[each], each != DEFAULT_SETTINGS), default=None)


def compare_class(suite: Suite, rows: Sequence[Row], reference: str | None = None) -> Standings:
    """Compare rows of one class over the tasks of a suite.

    reference: the name of the row that all are compared with, or its method; the leader where it is
    None. Raises UnknownNameError where there is no row of the reference.
    """
    column = main_column(suite)
    complete = [row for row in rows if _is_complete(suite, row)]
    complete.sort(key=lambda row: -goodness(column, row.values[column].mean))
    excluded = [row for row in rows if not _is_complete(suite, row)]
    ranked = [row for row in complete if not row.is_baseline]
    baselines = [row for row in complete if row.is_baseline]
    chosen = ranked[:1]
    if reference is not None:
        name = choose(reference, reference_names(rows), "reference")
        chosen = [row for row in complete if name in reference_names([row])]
    if not chosen:
        return Standings(None, excluded=tuple(excluded))
    return Standings(
        reference=chosen[0],
        ranked=_standings(suite, ranked, chosen[0]),
        baselines=_standings(suite, baselines, chosen[0]),
        ranks=_ranks(suite, ranked),
        excluded=tuple(excluded),
    )


def main_column(suite: Suite) -> Column:
    """Return the column by which rows are ordered: the first mean of the suite."""
    names = mean_columns(suite)
    return next(column for column, name in names.items() if name == suite.means[0])


def reference_names(rows: Sequence[Row]) -> list[str]:
    """Return by which names rows may be chosen as the reference."""
    methods = [row.key.method for row in rows if row.key is not None]
    return list(dict.fromkeys([*methods, *[row.name for row in rows]]))


def compared_columns(suite: Suite) -> list[Column]:
    """Return the columns of the tasks over which rows are compared: those of the main mean."""
    tasks = tasks_of_mean(suite, main_column(suite))
    return [task_column(suite.tasks[task]) for task in tasks]


def _task_scores(suite: Suite, row: Row) -> list[float]:
    """Return the accuracies of a row by task, in the order of the suite."""
    return [row.values[column].mean for column in compared_columns(suite)]


def _is_complete(suite: Suite, row: Row) -> bool:
    """Return whether a row has a value for every task, and all of them may be compared."""
    values = [row.values[column] for column in compared_columns(suite)]
    return all(value.exists and value.is_compared for value in values)


def _standings(suite: Suite, rows: Sequence[Row], reference: Row) -> tuple[Standing, ...]:
    """Compare rows with the reference; it stands among them where it is one of them."""
    column = main_column(suite)
    others = [row for row in rows if row is not reference]
    compared = [_compare(suite, reference, row) for row in others]
    adjusted = holm([comparison.p for comparison in compared])
    results = iter(zip(compared, adjusted, strict=True))
    found = []
    for row in rows:
        mean = row.values[column].mean
        if row is reference:
            found.append(Standing(row, mean))
        else:
            found.append(Standing(row, mean, *next(results)))
    return tuple(found)


def _compare(suite: Suite, reference: Row, row: Row) -> RowDifference:
    """Return the reference less a row: over tasks, or on the only one of the suite."""
    columns = compared_columns(suite)
    if len(columns) == 1:
        ours = reference.values[columns[0]].runs
        other = row.values[columns[0]].runs
        if ours is not None and other is not None:
            return compare_on_one_task(ours, other)
    return compare_rows(_task_scores(suite, reference), _task_scores(suite, row))


def _ranks(suite: Suite, rows: Sequence[Row]) -> RankComparison | None:
    """Return the ranks of rows over the tasks; None for fewer than three."""
    if len(rows) < 3 or len(compared_columns(suite)) < 2:
        return None
    return compare_ranks([_task_scores(suite, row) for row in rows])
