"""Where a number of a table comes from: its value, what it may be compared with, its records.

Also the command that makes it, where there is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from san import config_files, config_names, record_names
from san.installation import command_words
from san.record import DataSource, Record
from san.record_file import record_path
from san.report.aggregate import newest_done
from san.report.duplicates import deduplicate
from san.report.explain_names import Place, find_place, find_row, find_suite
from san.report.explain_record import describe_record, labelled_command
from san.report.explain_value import (
    describe_flags,
    describe_gap,
    describe_published_cell,
    describe_value,
    differences,
    flagged_value,
)
from san.report.means import task_column, tasks_of_mean
from san.report.own_images import with_own_tasks
from san.report.published import all_published_rows
from san.report.published_index import method_label, published_index, without_remark
from san.report.published_rows import make_published_row
from san.report.rows import Row, RunGroup, group_runs, in_table, make_our_row
from san.report.value import MISSING, to_text
from san.runtime.formatting import count_of
from san.tasks import Suite

_TEST = "test"
_TASK_WIDTH = 20
_RUN_ORDER = attrgetter("seed", "created")


class _TableKey(NamedTuple):
    """Which of our tables, in the order in which they are explained."""

    backbone: str
    is_of_another_split: bool
    split: str


@dataclass(frozen=True)
class _OurRow:
    """A row of ours in the table of a backbone and a split, and its runs."""

    backbone: str
    split: str
    group: RunGroup
    row: Row

    @property
    def method(self) -> str:
        return self.group.key.method

    @property
    def names(self) -> tuple[str, str]:
        """What tables call it: ours, and those in the style of papers."""
        name = self.row.name
        details = name.removeprefix(self.method)
        return name, method_label(self.method) + details

    def runs(self, task: str) -> list[Record]:
        """Return the runs of a task by seed, the newest last."""
        found = self.group.runs.get(task, [])
        return sorted(found, key=_RUN_ORDER)


def explain_cell(
    suite: str,
    name: str,
    column: str,
    records: Sequence[Record],
    folder: Path,
    backbone: str | None = None,
) -> Iterator[str]:
    """Yield what is known of a cell, ours and published, the values first.

    name: a method, or a row as tables print it, ours or published. column: a task or a mean. They
    and the suite are taken by key or as tables print them. records: with the names that
    `record_names.named_by_value` gives. folder: where they are. backbone: of all where it is None.
    Raises UnknownNameError with the nearest names.
    """
    place = find_place(with_own_tasks(find_suite(suite), records), column)
    ours = list(_our_rows(place.suite, records, backbone))
    backbones = [backbone] if backbone else _backbones(place.suite, ours)
    printed = {each: _published_rows(place.suite, each) for each in backbones}
    row = find_row(name, list(_known_names(ours, printed)))
    method = _method_of(row, ours)
    chosen = _choose_rows(row, method, ours)
    for our_row in chosen:
        yield from _describe_our_cell(our_row, place, printed[our_row.backbone], folder)
    if method and not chosen:
        yield from _describe_missing_row(method, place, backbone)
    for each in _tables_of_published(chosen, backbones):
        for published_row in printed[each]:
            if published_row.name == row or _is_compared(published_row, method):
                yield from describe_published_cell(published_row, place, each)


def _our_rows(suite: Suite, records: Sequence[Record], backbone: str | None) -> Iterator[_OurRow]:
    """Yield the rows of each table of ours, those of the test split first."""
    tables: dict[_TableKey, list[Record]] = {}
    for r in records:
        if r.suite == suite.name and backbone in (None, r.backbone):
            key = _TableKey(r.backbone, r.evaluated_on != _TEST, r.evaluated_on)
            tables.setdefault(key, []).append(r)
    for key in sorted(tables):
        runs, _ = deduplicate(tables[key])
        shown = in_table(suite, runs, key.split)
        groups = group_runs(suite, shown)
        for group in groups:
            row = make_our_row(suite, group, groups)
            yield _OurRow(key.backbone, key.split, group, row)


def _backbones(suite: Suite, rows: Sequence[_OurRow]) -> list[str]:
    backbones = {suite.backbone}
    for row in rows:
        backbones.add(row.backbone)
    return sorted(backbones)


def _published_rows(suite: Suite, backbone: str) -> list[Row]:
    printed = all_published_rows(suite, backbone)
    return [make_published_row(suite, row, backbone) for row in printed]


def _known_names(ours: Sequence[_OurRow], printed: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Yield every name of a method or row."""
    methods = config_files.choices("method")
    yield from methods
    for our_row in ours:
        yield our_row.method
        yield from our_row.names
    for rows in printed.values():
        yield from (row.name for row in rows)
    yield from map(method_label, methods)


def _method_of(name: str, ours: Sequence[_OurRow]) -> str:
    """Return the method that a name stands for, alone or in a row of ours; or nothing."""
    compared = published_index().our_methods
    methods = [*config_files.choices("method"), *(row.method for row in ours)]
    for method in methods:
        if name in (method, method_label(method), compared.get(method)):
            return method
    for row in ours:
        if name in row.names:
            return row.method
    return ""


def _choose_rows(name: str, method: str, ours: Sequence[_OurRow]) -> list[_OurRow]:
    """Return the rows of ours that a name stands for; a method stands for all of its rows."""
    named = [row for row in ours if name in row.names]
    is_method = name in (method, method_label(method))
    if named and not is_method:
        return named
    return [row for row in ours if row.method == method]


def _tables_of_published(chosen: Sequence[_OurRow], backbones: Sequence[str]) -> list[str]:
    """Return one backbone of those that papers call by one name, if need be that of our rows."""
    called = published_index().backbones
    first: dict[str, str] = {}
    preferred = [row.backbone for row in chosen]
    for backbone in [*preferred, *backbones]:
        printed_name = called.get(backbone, backbone)
        first.setdefault(printed_name, backbone)
    return list(first.values())


def _is_compared(row: Row, method: str) -> bool:
    """Return whether a published row is of a method of ours.

    `SSF (Mai et al., last)` is a variant of `SSF`.
    """
    return bool(method) and without_remark(row.name) == method_label(method)


def _describe_our_cell(
    our_row: _OurRow,
    place: Place,
    printed: Sequence[Row],
    folder: Path,
) -> Iterator[str]:
    """Yield the value of a cell of ours, what it may be compared with, and what it is made of."""
    value = flagged_value(our_row.row, place)
    is_test = our_row.split == _TEST
    split = "" if is_test else f", {our_row.split} split"
    heading = f"{place.title}, {our_row.row.name}, {our_row.backbone}{split}"
    yield f"{to_text(value)}  {heading}: {_count_parts(our_row, place)}"
    yield from describe_value(value)
    yield from describe_flags(value, differences(our_row.group, place))
    for row in printed:
        if is_test and _is_compared(row, our_row.method):
            yield from describe_gap(our_row.row, row, place)
    if place.task is None:
        yield from _describe_tasks(our_row, place)
    else:
        yield from _describe_runs(our_row, place.task.name, folder)
    yield ""


def _count_parts(our_row: _OurRow, place: Place) -> str:
    """Return how many records or tasks there are."""
    if place.task is None:
        tasks = tasks_of_mean(place.suite, place.column)
        return f"{len(tasks)} tasks"
    count = len(our_row.runs(place.task.name))
    return count_of(count, "record")


def _describe_tasks(our_row: _OurRow, place: Place) -> Iterator[str]:
    """Yield the values that a mean is made of."""
    for name in tasks_of_mean(place.suite, place.column):
        task = place.suite.tasks[name]
        column = task_column(task)
        value = our_row.row.values[column]
        yield f"    {task.label:<{_TASK_WIDTH}} {to_text(value)}"
    words = [*command_words("tables"), "--cell"]
    words += [place.suite.name, our_row.row.name, "TASK"]
    yield labelled_command("each task", words)


def _describe_runs(our_row: _OurRow, task: str, folder: Path) -> Iterator[str]:
    """Yield the records of a cell, and how to run the seeds that it lacks."""
    runs = our_row.runs(task)
    counted = newest_done(runs)
    for r in runs:
        path = record_path(
            folder,
            r.suite,
            r.method,
            r.task,
            r.seed,
            r.id,
        )
        is_counted = r in counted
        yield from describe_record(r, path, is_counted)
    all_runs: list[Record] = []
    for found in our_row.group.runs.values():
        all_runs += found
    seeds = {r.seed for r in all_runs}
    missing = seeds - {r.seed for r in runs}
    if missing:
        if runs:
            yield ""
        words = _words_of_seeds(all_runs[0], task, sorted(missing))
        yield labelled_command("not run", words)


def _words_of_seeds(other: Record, task: str, seeds: Sequence[int]) -> list[str]:
    """Return what runs seeds of a task. other: a run of the same row, of any task and seed."""
    run = structs.replace(
        other,
        task=task,
        data=DataSource(),
    )
    words = record_names.rerun_words(run, seeds)
    program = command_words("train")
    if len(seeds) > 1:
        program.append("-m")
    return program + words


def _describe_missing_row(method: str, place: Place, backbone: str | None) -> Iterator[str]:
    """Yield that a method was not run, and what runs it."""
    yield f"{MISSING}  {place.title}, {method}: not run yet"
    other = None if backbone == place.suite.backbone else backbone
    if place.task is not None:
        task = place.task
        words = [*command_words("train"), f"method={method}"]
        words += config_names.task_words(task.suite, task.name, task.root)
        words += config_names.backbone_words(other) if other else []
    else:
        words = command_words("reproduce")
        words += [place.suite.name, "--methods", method]
        words += ["--backbone", other] if other else []
    yield labelled_command("run", words)
    yield ""
