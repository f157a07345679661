"""Which rows and columns of a table are shown, by names that tables print or by keys.

rows       `san` (all rows of a method), `san [rank=4]`; all, where none is named
published  `SSF`, `all`, `none`; those that matter, where none is named
columns    `cifar`, `CIFAR-100`, `natural` (a group's tasks), `tasks`, `means`; all
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from san.errors import InvalidValueError, choose
from san.installation import command
from san.report.means import MEAN_OF_GROUP, Column, goodness, mean_columns, task_column
from san.report.published_index import method_label
from san.report.rows import Row
from san.report.standings import main_column
from san.report.table import Table

ALL = "all"
NONE = "none"
_MEANS = "means"
_TASKS = "tasks"


class Sort(StrEnum):
    """The order of rows."""

    MEAN = "mean"
    SUITE = "suite"


@dataclass(frozen=True)
class Wanted:
    """What the user asked for. None: what is shown where nothing is said.

    rows: of ours, by method or name. published: rows by name, `all` or `none`; columns: tasks,
    groups, `tasks` or `means`.
    """

    rows: Sequence[str] | None = None
    published: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    sort: Sort = Sort.MEAN


@dataclass(frozen=True)
class Selection:
    """Rows and columns of a table, in the order in which they are shown."""

    ours: tuple[Row, ...]
    published: tuple[Row, ...]
    columns: tuple[Column, ...]


def select(table: Table, wanted: Wanted) -> Selection:
    """Return what is shown of a table.

    Raises UnknownNameError on a row or column that the table does not have.
    """
    return Selection(
        ours=tuple(_ordered(table, _our_rows(table, wanted.rows), wanted.sort)),
        published=tuple(_ordered(table, _published_rows(table, wanted.published), wanted.sort)),
        columns=tuple(_columns(table, wanted.columns)),
    )


def _ordered(table: Table, rows: Sequence[Row], sort: Sort) -> list[Row]:
    """Return rows in the order of the suite, or the best first; incomplete ones come last."""
    if sort is Sort.SUITE:
        return list(rows)
    column = main_column(table.suite)
    return sorted(rows, key=lambda row: _descending(row, column))


def _descending(row: Row, column: Column) -> tuple[bool, float]:
    value = row.values[column]
    return (not value.exists, -goodness(column, value.mean) if value.exists else 0.0)


def _our_rows(table: Table, names: Sequence[str] | None) -> list[Row]:
    """Return rows of ours by name or method; a method stands for all of its rows."""
    rows = table.ours.rows
    if names is None:
        return list(rows)
    if not rows:
        raise InvalidValueError(
            f"--rows came as {', '.join(names)}; nothing of {table.suite.name} has been run here "
            f"that could be shown. Leave it out, or run `{command('reproduce')} "
            f"{table.suite.name}` first."
        )
    known: dict[str, list[Row]] = {}
    for row in rows:
        assert row.key is not None
        known.setdefault(row.key.method, []).append(row)
    for method, of_method in list(known.items()):
        known.setdefault(method_label(method), of_method)
    for row in rows:
        known.setdefault(row.name, [row])
    return _choose_rows(names, known, "row")


def _published_rows(table: Table, names: Sequence[str] | None) -> list[Row]:
    """Return published rows by name; by default those that one of our methods is compared with.

    The leader of each class of rows that can be compared is among them.
    """
    rows = table.published.rows
    if names is None:
        return [row for row in rows if _matters(table, row)]
    if list(names) == [ALL]:
        return list(rows)
    if list(names) == [NONE]:
        return []
    return _choose_rows(names, {row.name: [row] for row in rows}, "published row")


def _matters(table: Table, row: Row) -> bool:
    if row.published is None or not row.published.has_numbers:
        return False
    leads = any(verdict.standings.reference is row for verdict in table.published_verdicts)
    return leads or bool(row.published.our_method)


def _choose_rows(names: Sequence[str], known: dict[str, list[Row]], kind: str) -> list[Row]:
    """Return the rows that names stand for, each once."""
    chosen: list[Row] = []
    for name in names:
        for row in known[choose(name, known, kind)]:
            if not any(row is other for other in chosen):
                chosen.append(row)
    return chosen


def _columns(table: Table, names: Sequence[str] | None) -> Iterator[Column]:
    """Yield columns in the order of the table, each group's mean behind its tasks."""
    wanted = None if names is None else _wanted_columns(table, names)
    suite = table.suite
    means = mean_columns(suite)
    for group in suite.groups:
        of_group = [task_column(task) for task in suite.tasks.values() if task.group == group]
        own_mean = Column(MEAN_OF_GROUP, group)
        for column in [*of_group, *([own_mean] if own_mean in means else [])]:
            if wanted is None or column in wanted:
                yield column
    for column in means:
        is_overall = column.group != MEAN_OF_GROUP
        if is_overall and (wanted is None or column in wanted):
            yield column


def _wanted_columns(table: Table, names: Sequence[str]) -> set[Column]:
    """Return the columns that names stand for."""
    suite = table.suite
    known: dict[str, list[Column]] = {}
    for task in suite.tasks.values():
        column = task_column(task)
        known[task.name] = [column]
        known.setdefault(task.label, [column])
        known.setdefault(task.group, []).append(column)
        known.setdefault(_TASKS, []).append(column)
    known[_MEANS] = list(mean_columns(suite))
    chosen = set()
    for name in names:
        found = known[choose(name, known, "column")]
        chosen |= set(found)
    return chosen
