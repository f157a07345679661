"""From the runs of a cell to its value, and from the cells of a row to the values of its means."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from san import settings
from san.answers import Answers
from san.chance import near_chance
from san.record import Record, Status
from san.report.means import Column, interval_of_mean, mean, table_means, tasks_of_mean
from san.report.value import CellStatus, CountRange, Flag, RowCost, TrainableCounts, Value
from san.report.within_task import CellRuns, wilson_interval
from san.tasks import Suite

AnswersOf = Callable[[Record], Answers | None]
_NEVER_COMPARED = frozenset({Flag.UNVERIFIED_DATA, Flag.CONFLICT})
_FAILURES = {
    frozenset({Status.FAILED}): CellStatus.FAILED,
    frozenset({Status.OOM}): CellStatus.OOM,
    frozenset({Status.OOM, Status.FAILED}): CellStatus.OOM_AND_FAILED,
}


def no_answers(_: Record) -> None:
    """Return None: of no run it is known which images it had right."""


def aggregate_runs(runs: Sequence[Record], answers_of: AnswersOf = no_answers) -> Value:
    """Return the accuracy of a cell from its runs, without copies of one another.

    answers_of: returns which images of the test split a run had right, or None.
    """
    newest = _newest_of_each_seed(runs)
    done = _done(newest)
    accuracies = [r.accuracy for r in done]
    flags = _cell_flags(runs, newest)
    status = _cell_status(newest)
    cell_runs = _cell_runs(done, answers_of)
    low, high = _interval(cell_runs)
    return Value(
        mean=mean(accuracies),
        std=_standard_deviation(accuracies),
        n=len(accuracies),
        status=status,
        flags=flags,
        low=low,
        high=high,
        is_compared=status is CellStatus.DONE and not flags & _NEVER_COMPARED,
        runs=cell_runs,
    )


def aggregate_means(
    suite: Suite,
    cells: Mapping[str, Value],
    runs: Mapping[str, Sequence[Record]],
) -> dict[Column, Value]:
    """Return the means of a row of ours, with their spread over seeds where all cells have them."""
    accuracies = {task: cell.mean for task, cell in cells.items()}
    spreads = _spreads_over_seeds(suite, runs)
    means = {}
    for column, average in table_means(suite, accuracies, {}).items():
        tasks = tasks_of_mean(suite, column)
        part = [cells[task] for task in tasks]
        spread, count = spreads.get(column, (math.nan, 0))
        low, high = interval_of_mean(suite, column, cells)
        means[column] = Value(
            mean=average,
            std=spread,
            n=count,
            low=low,
            high=high,
            flags=_flags_of_mean(part),
            is_compared=all(cell.is_compared for cell in part),
        )
    return means


def aggregate_trainable(runs: Sequence[Record]) -> TrainableCounts:
    """Return the mean numbers of trained parameters over the seeds of a cell that are done."""
    without_head = []
    with_head = []
    for r in _done(_newest_of_each_seed(runs)):
        assert r.params is not None  # a record that is done has them
        without_head.append(r.params.trainable - r.params.head)
        with_head.append(r.params.trainable)
    return TrainableCounts(mean(without_head), mean(with_head))


def aggregate_cost(suite: Suite, runs: Mapping[str, Sequence[Record]]) -> RowCost:
    """Return what the runs of a row took together, those that failed too: one for each seed.

    NaN where a task has no run or a run does not say: a part of the sum could pass for the whole.
    """
    newest = []
    for task in suite.tasks:
        of_task = _newest_of_each_seed(runs.get(task, []))
        if not of_task:
            return RowCost()
        newest += of_task
    hours = [r.device_hours for r in newest]
    joules = [r.joules for r in newest]
    return RowCost(_sum_of_known(hours), _sum_of_known(joules))


def aggregate_trials(runs: Mapping[str, Sequence[Record]]) -> CountRange | None:
    """Return how many settings were tried for the runs of a row; None where one does not say."""
    found = []
    for of_task in runs.values():
        for r in _newest_of_each_seed(of_task):
            trials = trials_of(r)
            if trials is None:
                return None
            found.append(trials)
    return CountRange.of(found) if found else None


def trials_of(r: Record) -> int | None:
    """Return how many settings were tried to choose the hyper-parameters of a run.

    Its recipe says one number, or one for each method and `default` for the others; None where it
    does not, as in records that are older or were made by hand, where it has no row for the task,
    and where the run departs from it.
    """
    recipe = recipe_of(r)
    trials = recipe.get("trials")
    has_gap = recipe.get("rows") is not None and recipe.get("row") is None
    if has_gap or _has_own_rate(r):
        return None
    if isinstance(trials, Mapping):
        trials = trials.get(r.method, trials.get("default"))
    is_count = isinstance(trials, int) and not isinstance(trials, bool) and trials >= 0
    return trials if is_count else None


def recipe_of(r: Record) -> Mapping[str, Any]:
    """Return the recipe that a run was given; nothing where a record does not say."""
    recipe = r.config.get("recipe")
    return recipe if isinstance(recipe, Mapping) else {}


def _has_own_rate(r: Record) -> bool:
    """Return whether a learning rate was given, in place of the recipe's."""
    return any(word.startswith("lr=") for word in settings.split_variant(r.variant))


def newest_done(runs: Sequence[Record]) -> list[Record]:
    """Return the runs of a cell that are done, one for each seed."""
    return _done(_newest_of_each_seed(runs))


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


def _sum_of_known(amounts: Sequence[float | None]) -> float:
    """Return the sum, whatever the order; NaN where an amount is not known."""
    return math.fsum(math.nan if amount is None else amount for amount in amounts)


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
        if r.code.dirty:
            flags.add(Flag.UNCOMMITTED_CODE)
        if near_chance(r.classes) is not None:
            flags.add(Flag.NEAR_CHANCE)
    if len(runs) > len(newest):
        flags.add(Flag.CONFLICT)
    return frozenset(flags)


def _cell_runs(done: Sequence[Record], answers_of: AnswersOf) -> CellRuns | None:
    """Return right answers by seed, and by image where all runs kept them.

    None where there are no runs, or they were tested on different numbers of images.
    """
    scores = [r.score for r in done if r.score is not None]
    totals = {score.total for score in scores}
    if len(totals) != 1:
        return None
    by_seed = [answers_of(r) for r in done]
    kept = [answers for answers in by_seed if answers is not None]
    return CellRuns(
        correct=[score.correct for score in scores],
        total=totals.pop(),
        answers=np.stack(kept) if len(kept) == len(done) else None,
    )


def _interval(runs: CellRuns | None) -> tuple[float, float]:
    """Return the 95 % interval of a cell for its test images; NaN where it has none."""
    if runs is None:
        return math.nan, math.nan
    interval = wilson_interval(float(np.mean(runs.correct)), runs.total)
    return interval.low, interval.high


def _spreads_over_seeds(
    suite: Suite,
    runs: Mapping[str, Sequence[Record]],
) -> dict[Column, tuple[float, int]]:
    """Return by mean its standard deviation over seeds, and how many there are.

    Nothing where tasks have different seeds, or a single one.
    """
    by_seed: dict[int, dict[str, float]] = {}
    for task in suite.tasks:
        for r in newest_done(runs.get(task, [])):
            by_seed.setdefault(r.seed, {})[task] = r.accuracy
    whole = [found for found in by_seed.values() if len(found) == len(suite.tasks)]
    if len(whole) < 2 or len(whole) != len(by_seed):
        return {}
    means = [table_means(suite, accuracies, {}) for accuracies in whole]
    spreads = {}
    for column in means[0]:
        values = [of_seed[column] for of_seed in means]
        spreads[column] = (_standard_deviation(values), len(values))
    return spreads


def _flags_of_mean(cells: Sequence[Value]) -> frozenset[Flag]:
    """Return the flags of a mean: those of all cells it is made of, and whether seeds failed."""
    flags: set[Flag] = set()
    for cell in cells:
        flags |= cell.flags
        if cell.status not in (CellStatus.DONE, CellStatus.MISSING):
            flags.add(Flag.OTHER_SEEDS)
    return frozenset(flags)
