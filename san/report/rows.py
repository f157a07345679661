"""Rows of a table: ours, published ones, and the gaps between them."""

import itertools
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from san import settings
from san.record import Record
from san.report.aggregate import (
    AnswersOf,
    aggregate_cost,
    aggregate_means,
    aggregate_runs,
    aggregate_trainable,
    aggregate_trials,
    newest_done,
    no_answers,
    recipe_of,
)
from san.report.comparability import (
    ComparedCell,
    Difference,
    Facts,
    RowKey,
    deciding_rows,
    differences,
    facts_of_run,
    mixed_between_tasks,
    with_seeds,
)
from san.report.means import Column, accuracy_columns, mean, task_column
from san.report.published import PublishedRow
from san.report.value import (
    MISSING,
    CountRange,
    Flag,
    NumberFormat,
    RowCost,
    TrainableCounts,
    Value,
    marks,
)
from san.tasks import Suite

DEFAULT_SETTINGS = "default settings"  # not chosen for each task
_UNKNOWN_COUNTS = TrainableCounts()
_UNKNOWN_COST = RowCost()
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a table: a value for each column of accuracies, and what stands behind them.

    key: of our rows. published: what is printed, of published rows. flags: of the row as a whole;
    they are not repeated at its values. seeds: None where they are not known. trials: how many
    settings were tried to choose the hyper-parameters of a task; None where one of its runs does
    not say. is_baseline: full fine-tuning and linear probing are compared with, but not ranked.
    comparison_class: only rows of one class are compared with each other; None: with no other row.
    """

    name: str
    values: Mapping[Column, Value]
    flags: frozenset[Flag] = frozenset()
    trainable: TrainableCounts = _UNKNOWN_COUNTS
    seeds: CountRange | None = None
    trials: CountRange | None = None
    cost: RowCost = _UNKNOWN_COST
    key: RowKey | None = None
    published: PublishedRow | None = None
    is_baseline: bool = False
    comparison_class: Hashable | None = DEFAULT_SETTINGS

    @property
    def label(self) -> str:
        """The name with the marks of the row."""
        return self.name + marks(self.flags)

    def summary_texts(self) -> list[str]:
        """Return trained parameters without and with the head, and seeds, as they are printed."""
        seeds = self.seeds.text() if self.seeds is not None else MISSING
        return [*self.trainable.texts(), seeds]


@dataclass(frozen=True, eq=False)
class RunGroup:
    """The runs of one of our rows by task, and the value of every task of the suite.

    differences: by task, in what its runs differ from each other or from most rows.
    mixed: in what its runs of one task differ from those of another.
    """

    key: RowKey
    runs: Mapping[str, Sequence[Record]]
    cells: Mapping[str, Value]
    differences: Mapping[str, Sequence[Difference]]
    mixed: Sequence[Difference]


def in_table(suite: Suite, records: Sequence[Record], split: str = "test") -> list[Record]:
    """Return the runs that a table of a split shows: those scored on it, of a task of the suite."""
    return [r for r in records if r.evaluated_on == split and r.task in suite.tasks]


def group_runs(
    suite: Suite,
    records: Sequence[Record],
    answers_of: AnswersOf = no_answers,
) -> list[RunGroup]:
    """Sort runs into rows, the suite's methods first, and mark what cannot be compared.

    answers_of: returns which images a run had right, or None.
    """
    by_key: dict[RowKey, dict[str, list[Record]]] = {}
    for r in records:
        key = RowKey.of(r)
        by_key.setdefault(key, {}).setdefault(r.task, []).append(r)
    keys = sorted(by_key, key=lambda key: _position(key, suite.methods))
    facts = {key: _facts_by_task(by_key[key]) for key in keys}
    found: dict[RowKey, dict[str, list[Difference]]] = {}
    for alike in _tuned_alike(by_key):
        found |= _differences_by_row(suite, {key: facts[key] for key in alike})
    groups = []
    for key in keys:
        mixed = mixed_between_tasks(itertools.chain.from_iterable(facts[key].values()))
        groups.append(_make_group(suite, key, by_key[key], found[key], mixed, answers_of))
    return groups


def _tuned_alike(
    by_key: Mapping[RowKey, Mapping[str, Sequence[Record]]],
) -> list[list[RowKey]]:
    """Return rows by the recipe that they were given: only those of one are compared."""
    groups: dict[str, list[RowKey]] = {}
    for key, runs in by_key.items():
        groups.setdefault(_recipe_with_rows(runs), []).append(key)
    return list(groups.values())


def _recipe_with_rows(runs: Mapping[str, Sequence[Record]]) -> str:
    """Return the recipe of a row that has values by task, and its search; or nothing."""
    names = set()
    for of_task in runs.values():
        for recipe in map(recipe_of, of_task):
            if recipe.get("rows") is not None:
                names.add(" ".join([str(recipe["name"]), str(recipe.get("search") or "")]).strip())
    return ", ".join(sorted(names))


def make_our_row(suite: Suite, group: RunGroup, groups: Sequence[RunGroup]) -> Row:
    """Return one of our rows. groups: all of ours, from which its name sets it apart."""
    means = aggregate_means(suite, group.cells, group.runs)
    seeds = [cell.n for cell in group.cells.values()]
    keys = [other.key for other in groups]
    values = by_column(suite, group.cells, means)
    if group.mixed:
        values = {column: _with_flag(value) for column, value in values.items()}
    shared = _shared_flags(values)
    trials = aggregate_trials(group.runs)
    return Row(
        name=row_name(group.key, keys),
        values={column: _without_flags(value, shared) for column, value in values.items()},
        flags=shared,
        trainable=_mean_trainable(suite, group),
        seeds=CountRange.of(seeds),
        trials=trials,
        comparison_class=_budget(group, trials),
        cost=aggregate_cost(suite, group.runs),
        key=group.key,
        is_baseline=group.key.method in suite.baselines,
    )


def _budget(group: RunGroup, trials: CountRange | None) -> str:
    """Return which rows a row of ours is compared with: those that were tuned alike."""
    recipe = _recipe_with_rows(group.runs)
    if not recipe:
        return DEFAULT_SETTINGS
    searches = []
    for of_task in group.runs.values():
        searches += [recipe_of(r).get("search") for r in of_task]
    if trials is None or not any(searches):
        return f"recipe {recipe}"
    return f"recipe {recipe}, {trials.text()} trials"


def by_column(
    suite: Suite,
    cells: Mapping[str, Value],
    means: Mapping[Column, Value],
) -> dict[Column, Value]:
    """Return the values of tasks and means in the order of the columns."""
    values = dict(means)
    for name, task in suite.tasks.items():
        values[task_column(task)] = cells[name]
    return {column: values[column] for column in accuracy_columns(suite)}


def make_gap_row(ours: Row, published: Row) -> Row:
    """Return ours minus the published values, with the flags of both."""
    values = {}
    for column, own in ours.values.items():
        printed = published.values[column]
        values[column] = Value(
            mean=own.mean - printed.mean,
            flags=own.flags | ours.flags | printed.flags | published.flags,
            number_format=NumberFormat.SIGNED,
        )
    return Row(f"{ours.name} - {published.name}", values, comparison_class=None)


def row_name(key: RowKey, keys: Sequence[RowKey]) -> str:
    """Return the method, and what distinguishes the row from others."""
    protocols = {other.protocol for other in keys}
    details = []
    if key.variant:
        details.append(settings.shorten_variant(key.variant))
    if len(protocols) > 1:
        details.append(key.protocol)
    return f"{key.method} [{', '.join(details)}]" if details else key.method


def _position(key: RowKey, methods: Sequence[str]) -> tuple[object, ...]:
    """Return what orders our rows: the suite's methods, then by name; numbers by their value."""
    order = methods.index(key.method) if key.method in methods else len(methods)
    words = []
    for text in (key.method, key.variant, key.protocol):
        words.append(tuple(_sortable(word) for word in _NUMBER.split(text)))
    return (order, *words)


def _sortable(word: str) -> tuple[bool, float, str]:
    is_number = _NUMBER.fullmatch(word) is not None
    return (is_number, float(word) if is_number else 0.0, word)


def _facts_by_task(runs: Mapping[str, Sequence[Record]]) -> dict[str, list[Facts]]:
    """Return the facts of the runs of a row that are done, by task; tasks without one are out."""
    by_task = {}
    for task, of_task in runs.items():
        done = newest_done(of_task)
        if done:
            by_task[task] = with_seeds(map(facts_of_run, done), [r.seed for r in done])
    return by_task


def _differences_by_row(
    suite: Suite,
    facts: Mapping[RowKey, Mapping[str, Sequence[Facts]]],
) -> dict[RowKey, dict[str, list[Difference]]]:
    """Return, by row and task, in what runs differ from each other or from most rows."""
    complete = [key for key, by_task in facts.items() if len(by_task) == len(suite.tasks)]
    deciding = deciding_rows(complete)
    found: dict[RowKey, dict[str, list[Difference]]] = {key: {} for key in facts}
    for task in suite.tasks:
        cells = []
        for key, by_task in facts.items():
            if task in by_task:
                cells.append(ComparedCell(key, by_task[task]))
        usual = differences(cells, deciding)
        for cell in cells:
            mixed = cell.mixed
            mixed_facts = [difference.fact for difference in mixed]
            others = [each for each in usual[cell.row] if each.fact not in mixed_facts]
            found[cell.row][task] = mixed + others
    return found


def _make_group(
    suite: Suite,
    key: RowKey,
    runs: Mapping[str, Sequence[Record]],
    found: Mapping[str, Sequence[Difference]],
    mixed: Sequence[Difference],
    answers_of: AnswersOf,
) -> RunGroup:
    """Return a group with a cell for each task of the suite, also without runs."""
    cells = {}
    for task in suite.tasks:
        cell = aggregate_runs(runs.get(task, []), answers_of)
        flags = {difference.flag for difference in found.get(task, [])}
        is_compared = cell.is_compared and not flags
        cells[task] = replace(cell, flags=cell.flags | flags, is_compared=is_compared)
    return RunGroup(key, runs, cells, found, mixed)


def _with_flag(value: Value) -> Value:
    """Return a value of a row whose tasks were run under different settings."""
    return replace(value, flags=value.flags | {Flag.MIXED_SETTINGS}, is_compared=False)


def _without_flags(value: Value, flags: frozenset[Flag]) -> Value:
    return replace(value, flags=value.flags - flags)


def _shared_flags(values: Mapping[Column, Value]) -> frozenset[Flag]:
    """Return the flags that all numbers of a row have: they stand at its name."""
    flags = [value.flags for value in values.values() if value.exists]
    return frozenset.intersection(*flags) if flags else frozenset()


def _mean_trainable(suite: Suite, group: RunGroup) -> TrainableCounts:
    """Return the mean over all tasks of the numbers of trained parameters."""
    counts = [aggregate_trainable(group.runs.get(task, [])) for task in suite.tasks]
    without_head = [count.without_head for count in counts]
    with_head = [count.with_head for count in counts]
    return TrainableCounts(mean(without_head), mean(with_head))
