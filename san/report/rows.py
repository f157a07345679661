"""Rows of a table: ours, published ones, and the gaps between them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from san import settings
from san.record import Record, Status
from san.report.aggregate import (
    MEAN_OF_GROUPS,
    MEAN_OF_TASKS,
    Column,
    accuracy_columns,
    aggregate_runs,
    aggregate_trainable,
    mean,
    table_means,
    task_column,
)
from san.report.published import PublishedRow
from san.report.published_index import is_vit_b16
from san.report.value import (
    MISSING,
    CellStatus,
    Flag,
    NumberFormat,
    SeedCounts,
    TrainableCounts,
    Value,
    marks,
)
from san.tasks import Suite

_UNKNOWN_COUNTS = TrainableCounts()


@dataclass(frozen=True)
class Row:
    """A row of a table: a value for each column of accuracies, and what stands behind them.

    flags: of the row as a whole. seeds: None where they are not known.
    """

    name: str
    values: Mapping[Column, Value]
    flags: frozenset[Flag] = frozenset()
    trainable: TrainableCounts = _UNKNOWN_COUNTS
    seeds: SeedCounts | None = None

    @property
    def label(self) -> str:
        """The name with the marks of the row."""
        return self.name + marks(self.flags)

    def summary_texts(self) -> list[str]:
        """Return trained parameters without and with the head, and seeds, as they are printed."""
        seeds = self.seeds.text() if self.seeds is not None else MISSING
        return [*self.trainable.texts(), seeds]


@dataclass(frozen=True, order=True)
class RowKey:
    """What the runs of one of our rows share."""

    method: str
    variant: str
    protocol: str


@dataclass(frozen=True)
class RunGroup:
    """The runs of one of our rows by task, and the value of every task of the suite."""

    key: RowKey
    runs: Mapping[str, Sequence[Record]]
    cells: Mapping[str, Value]

    @property
    def done(self) -> list[Record]:
        """All runs that are done."""
        everything = itertools.chain.from_iterable(self.runs.values())
        return [r for r in everything if r.status == Status.DONE]

    @property
    def fewest_seeds(self) -> int:
        """The fewest seeds among the cells that have any; 0 where none has."""
        seeds = [cell.n for cell in self.cells.values() if cell.n > 0]
        return min(seeds, default=0)


def in_table(suite: Suite, records: Sequence[Record]) -> list[Record]:
    """Return the runs that a table shows: those scored on the test split of a task of the suite."""
    return [r for r in records if r.evaluated_on == "test" and r.task in suite.tasks]


def group_runs(suite: Suite, records: Sequence[Record]) -> list[RunGroup]:
    """Sort runs into rows: the suite's methods first, in its order."""
    by_key: dict[RowKey, dict[str, list[Record]]] = {}
    for r in records:
        key = RowKey(r.method, r.variant, r.protocol)
        by_key.setdefault(key, {}).setdefault(r.task, []).append(r)
    keys = sorted(by_key)
    keys.sort(key=lambda key: _method_order(key.method, suite.methods))
    return [_make_group(suite, key, by_key[key]) for key in keys]


def make_our_row(suite: Suite, group: RunGroup, groups: Sequence[RunGroup]) -> Row:
    """Return one of our rows. groups: all of ours, from which its name and flags set it apart."""
    accuracies = {task: cell.mean for task, cell in group.cells.items()}
    flags = _mean_flags(group)
    means = {
        column: Value(average, flags=flags)
        for column, average in table_means(suite, accuracies, {}).items()
    }
    seeds = [cell.n for cell in group.cells.values()]
    keys = [other.key for other in groups]
    return Row(
        name=row_name(group.key, keys),
        values=_by_column(suite, group.cells, means),
        flags=_row_flags(group, groups),
        trainable=_mean_trainable(suite, group),
        seeds=SeedCounts(min(seeds), max(seeds)),
    )


def make_published_row(suite: Suite, published: PublishedRow, backbone: str) -> Row:
    """Return a published row; its means are computed from its values by our rules, else stated."""
    accuracies = {task: published.accuracies.get(task, math.nan) for task in suite.tasks}
    cells = {task: _printed_value(accuracy) for task, accuracy in accuracies.items()}
    computed = table_means(suite, accuracies, {})
    means = {}
    for column, average in table_means(suite, accuracies, published.reported_means).items():
        is_computed = not math.isnan(computed[column])
        means[column] = Value(average) if is_computed else _stated(published, column, average)
    return Row(
        name=published.method,
        values=_by_column(suite, cells, means),
        flags=_published_flags(published, backbone),
        trainable=_printed_trainable(published),
    )


def make_gap_row(ours: Row, published: Row) -> Row:
    """Return ours minus the published values, with the flags of both."""
    values = {}
    for column, own in ours.values.items():
        printed = published.values[column]
        values[column] = Value(
            mean=own.mean - printed.mean,
            flags=own.flags | printed.flags,
            number_format=NumberFormat.SIGNED,
        )
    return Row(f"{ours.label} - {published.label}", values)


def _make_group(suite: Suite, key: RowKey, runs: Mapping[str, Sequence[Record]]) -> RunGroup:
    """Return a group with a cell for each task of the suite, also without runs."""
    cells = {}
    for task in suite.tasks:
        cells[task] = aggregate_runs(runs.get(task, []))
    return RunGroup(key, runs, cells)


def _by_column(
    suite: Suite,
    cells: Mapping[str, Value],
    means: Mapping[Column, Value],
) -> dict[Column, Value]:
    """Return the values of tasks and means in the order of the columns."""
    values = dict(means)
    for name, task in suite.tasks.items():
        values[task_column(task)] = cells[name]
    return {column: values[column] for column in accuracy_columns(suite)}


def _method_order(method: str, methods: Sequence[str]) -> int:
    """Return the position among the suite's methods; all others come last."""
    if method in methods:
        return methods.index(method)
    return len(methods)


def row_name(key: RowKey, keys: Sequence[RowKey]) -> str:
    """Return the method, and what distinguishes the row from others."""
    protocols = {other.protocol for other in keys}
    details = []
    if key.variant:
        details.append(settings.shorten_variant(key.variant))
    if len(protocols) > 1:
        details.append(key.protocol)
    return f"{key.method} [{', '.join(details)}]" if details else key.method


def _row_flags(group: RunGroup, groups: Sequence[RunGroup]) -> frozenset[Flag]:
    """Return the flags of one of our rows as a whole."""
    flags = set()
    if _has_mixed_settings(group):
        flags.add(Flag.MIXED_SETTINGS)
    most_seeds = max(other.fewest_seeds for other in groups)
    if 0 < group.fewest_seeds < most_seeds:
        flags.add(Flag.FEWER_SEEDS)
    return frozenset(flags)


def _has_mixed_settings(group: RunGroup) -> bool:
    """Return whether runs of a row, or of one of its tasks, differ in what should be the same."""
    settings = set()
    fingerprints = set()
    for r in group.done:
        settings.add(_shared_settings(r))
        fingerprints.add((r.task, r.data.train, r.data.evaluate))
    tasks = {r.task for r in group.done}
    return len(settings) > 1 or len(fingerprints) > len(tasks)


def _shared_settings(r: Record) -> tuple[str, ...]:
    """Return what all runs of a row should share."""
    data = r.config.get("data", {})
    shared = (
        r.weights,
        r.config.get("precision"),
        r.data.kind,
        data.get("resize"),
        data.get("normalise"),  # records have the words of schema 1
    )
    return tuple(map(repr, shared))  # of a record made by hand they may be anything


def _mean_flags(group: RunGroup) -> frozenset[Flag]:
    """Return the flags of a mean: those of all cells it is made of, and whether seeds failed."""
    flags: set[Flag] = set()
    for cell in group.cells.values():
        flags |= cell.flags
        if cell.status not in (CellStatus.DONE, CellStatus.MISSING):
            flags.add(Flag.FEWER_SEEDS)
    return frozenset(flags)


def _mean_trainable(suite: Suite, group: RunGroup) -> TrainableCounts:
    """Return the mean over all tasks of the numbers of trained parameters."""
    counts = [aggregate_trainable(group.runs.get(task, [])) for task in suite.tasks]
    without_head = [count.without_head for count in counts]
    with_head = [count.with_head for count in counts]
    return TrainableCounts(mean(without_head), mean(with_head))


def _printed_value(accuracy: float) -> Value:
    """Return an accuracy with as many decimals as papers print."""
    has_one_decimal = round(accuracy, 1) == accuracy
    decimals = NumberFormat.ONE_DECIMAL if has_one_decimal else NumberFormat.TWO_DECIMALS
    return Value(accuracy, number_format=decimals)


def _stated(published: PublishedRow, column: Column, average: float) -> Value:
    """Return a mean as stated. average: from stated means of groups, NaN where one lacks."""
    overall = {MEAN_OF_TASKS: published.mean_of_tasks, MEAN_OF_GROUPS: published.mean_of_groups}
    printed = overall.get(column)
    stated = printed if math.isnan(average) and printed is not None else average
    return Value(stated, flags=frozenset({Flag.REPORTED_MEAN}))


def _printed_trainable(published: PublishedRow) -> TrainableCounts:
    """Return the printed parameters, on the side of the head where they were counted."""
    unknown = TrainableCounts(in_millions=True)
    if published.params_m is None or published.counts_head is None:
        return unknown
    count = 1e6 * published.params_m
    if published.counts_head:
        return replace(unknown, with_head=count)
    return replace(unknown, without_head=count)


def _published_flags(published: PublishedRow, backbone: str) -> frozenset[Flag]:
    """Return the flags of a published row."""
    flags = set()
    if published.selected_on == "test":
        flags.add(Flag.CHOSEN_ON_TEST)
    if published.weights is not None and published.weights != backbone:
        flags.add(Flag.OTHER_WEIGHTS)
    lacks_weights = is_vit_b16(backbone) and published.weights is None
    is_unknown = published.selected_on is None or lacks_weights
    if is_unknown and published.has_numbers:
        flags.add(Flag.UNKNOWN_PROTOCOL)
    return frozenset(flags)
